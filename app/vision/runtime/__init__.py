"""How a run uses the machine: processes, memory, number formats, compilation."""
