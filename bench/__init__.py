"""Measure each figure that the project claims by one command: `python -m bench.NAME --data FOLDER_OR_ZIP`."""
