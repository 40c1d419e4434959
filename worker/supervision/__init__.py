"""Slots that claim jobs and supervise them, and housekeeping."""
