"""One command for each figure that the project claims: `python -m bench.NAME --data FOLDER_OR_ZIP`."""
