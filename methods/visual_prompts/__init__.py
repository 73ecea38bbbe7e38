"""Prompts inside the image tower."""
