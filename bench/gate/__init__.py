"""The regression gate."""

from bench.system.former_names import contents_of

__getattr__ = contents_of(__name__)
