"""Floor 1: workspaces, API keys, scopes."""
