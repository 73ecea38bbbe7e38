"""Classifiers in closed form on frozen features."""
