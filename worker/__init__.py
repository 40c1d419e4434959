"""Floor 9: runs jobs. Claims them, supervises one child process a job, and is the one that writes."""
