"""Answer calls while the caller waits: loaded models, batches, engines."""
