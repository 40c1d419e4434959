"""A kind of job for tests: adds up numbers. All that a kind needs stands in this folder, and nothing else names it."""
