"""These modules train: the loop, steps, schedules, checkpoints, resuming."""
