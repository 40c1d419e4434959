"""`graft demo` and the images that it brings."""
