"""The files that a run leaves: tensors with a document, models, and models to start from."""
