"""Floor 3: the job row, its states, claim and lease, metrics, training specs."""
