"""This package holds datasets, their images and frozen versions, and reads uploads."""
