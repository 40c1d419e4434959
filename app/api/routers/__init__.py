"""The routes, one module a resource. A route reads the request, calls a service, and shapes the answer."""
