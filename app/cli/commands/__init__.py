"""The commands of `graft`, one module for each resource."""
