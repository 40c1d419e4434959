"""These modules write and read the files of a run: tensors with a document, models, tables."""
