"""The `graft` command. Commands import heavy modules only when they run, so that `graft --help` is quick."""
