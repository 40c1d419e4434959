"""Trainings that several processes or machines share."""
