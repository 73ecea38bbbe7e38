"""Bounds: methods that see everything at once, or that the others are read against."""
