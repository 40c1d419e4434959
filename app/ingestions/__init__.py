"""Floor 6: the kind of job that reads an upload, or files of elsewhere, into a dataset."""
