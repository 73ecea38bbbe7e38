"""Learned prompts of the text tower, and adapters on features."""
