"""Classify images: predict calls, predict jobs, and the Open Inference Protocol."""
