"""Scores that tasks share: intervals, calibration, ranking, OOD scores, and how they are drawn."""
