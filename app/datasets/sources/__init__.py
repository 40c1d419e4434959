"""This package reads the files of a dataset from where they are: an archive that was sent, or a place that was
named."""
