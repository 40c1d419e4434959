"""The tasks that can be learnt, one folder each."""
