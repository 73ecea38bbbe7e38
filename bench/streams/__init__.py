"""From a name to a stream of tasks with images or features."""
