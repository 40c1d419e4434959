"""The command `python -m app.vision` fine-tunes and answers with no server and no database."""
