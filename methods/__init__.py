"""Learners: one file a method; pieces that several share are in `methods.parts`."""
