"""Scores that tasks share: intervals, calibration, ranking, out-of-distribution scores, and how they are drawn."""
