"""The samples of a run and how they reach the training loop: folders, caches, packing, feeds."""
