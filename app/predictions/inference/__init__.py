"""The Open Inference Protocol v2, which takes and gives tensors."""
