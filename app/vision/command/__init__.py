"""The command `python -m app.vision`: fine-tune and classify with no server and no database."""
