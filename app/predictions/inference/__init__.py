"""The Open Inference Protocol v2: tensors in and out."""
