"""Predict jobs, which classify many stored images and leave a table of rows."""
