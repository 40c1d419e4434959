"""Floor 6: the kind of job that trains a model: what a caller may ask for, the plan, the spec, the result."""
