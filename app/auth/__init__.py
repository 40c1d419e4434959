"""Workspaces, API keys and scopes."""
