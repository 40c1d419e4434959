"""These modules bring the samples of a run to the training loop: folders, caches, packing, feeds."""
