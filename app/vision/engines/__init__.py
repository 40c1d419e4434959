"""Engines compute a model's outputs; the best one is chosen by measuring."""
