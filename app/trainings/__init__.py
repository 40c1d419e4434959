"""Trainings: what a caller may ask for, the plan, and what becomes of it."""
