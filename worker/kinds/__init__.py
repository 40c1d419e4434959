"""The work of a child, one module for each kind of job."""
