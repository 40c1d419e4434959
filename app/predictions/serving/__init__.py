"""Predictions while the caller waits: loaded models, batches, engines."""
