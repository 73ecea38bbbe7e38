"""CGIL."""
