"""This package sends requests to addresses that a caller names: only to where they may go, and within bounds of bytes
and time."""
