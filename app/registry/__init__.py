"""Trained models with their lineage, artefacts and aliases."""
