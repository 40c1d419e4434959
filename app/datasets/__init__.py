"""Floor 2: datasets, images, frozen versions, ingestion."""
