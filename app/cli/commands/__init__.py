"""The commands of `graft`, one module a resource."""
