"""The routes, one module for each resource. A route reads the request, calls a service, and shapes the response."""
