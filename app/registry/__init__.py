"""Floor 4: models (trained versions), lineage, artefacts."""
