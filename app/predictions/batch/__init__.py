"""Predictions as a job: many stored images, whose rows are downloaded."""
