"""Slots that claim jobs and supervise them, and what has to be done again and again."""
