"""Engines that compute a model's outputs, and the choice among them by measuring."""
