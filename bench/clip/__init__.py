"""CLIP: its two towers, its weights in every form in which people keep them, and the miniature that ships here."""
