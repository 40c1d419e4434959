"""Floor 4: the queue: the job row, its states, claim and lease, checkpoints, workers. It knows no kind of job."""
