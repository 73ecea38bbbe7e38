"""STAR-Prompt."""
