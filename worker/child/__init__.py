"""The process that computes one job, and its end of the pipe to the worker."""
