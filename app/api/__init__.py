"""Floor 6: HTTP. The only importer of fastapi."""
