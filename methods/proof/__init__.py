"""PROOF."""
