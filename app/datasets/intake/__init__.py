"""This package turns an untrusted file into the image that is kept, in bounded processes."""
