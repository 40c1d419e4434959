"""Receive files: whole, as a form, or in several requests."""
