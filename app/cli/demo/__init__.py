"""`graft demo` and its images."""
