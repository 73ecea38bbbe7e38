"""The learner's interface, and its examination."""
