"""Measured results that people hand in: one table of finished runs that carries all it takes to check it."""
