"""Where the time of runs goes."""
