"""The training loop and what belongs to it: steps, schedules, checkpoints, resuming."""
