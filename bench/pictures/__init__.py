"""Numbers as figures."""
