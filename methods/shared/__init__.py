"""Pieces that several families of methods share."""
