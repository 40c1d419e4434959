"""Receiving files: whole, as a form, or in pieces."""
