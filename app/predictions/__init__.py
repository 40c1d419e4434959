"""Floor 5: the model cache and the micro-batcher that answer predict calls."""
