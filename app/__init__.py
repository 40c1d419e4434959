"""Graftwork: fine-tune and serve image classifiers over HTTP."""

__version__ = "0.1.0"
