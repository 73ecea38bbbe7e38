"""The version of this package; what runs and requests of it are marked with."""

VERSION = "0.1.0"
