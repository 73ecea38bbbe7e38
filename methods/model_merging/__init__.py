"""Models of all tasks merged, or unified and rebuilt."""
