"""Where the files of a dataset come from: an archive that was sent, or a place that was named."""
