"""Accuracy matrices that other programs have left behind."""
