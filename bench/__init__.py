"""A benchmark harness for continual learning of CLIP."""

__version__ = "0.1.0"
