"""Floor 6: the `graft` command. Heavy imports stand inside the commands, so that `graft --help` is quick."""
