"""These modules say how a run uses the machine: processes, memory, number formats, compilation, reports."""
