"""Inputs of every process of a training: the samples of a version, and the cache of this machine."""

from pathlib import Path

from app.core.settings import Settings
from app.datasets.manifest import Manifest
from app.vision.data.rowcache import RowCache
from app.vision.data.samples import Sample


def samples_of(manifest: Manifest) -> list[Sample]:
    """Return a sample for each image. Its blob is fetched when the training asks for it: not where the cache has it."""
    labels = {label: index for index, label in enumerate(manifest.classes)}
    return [Sample(Path(item.sha256), labels[item.label], item.split, item.sha256) for item in manifest.items]


def cache_of(settings: Settings) -> RowCache | None:
    return RowCache(settings.image_cache, settings.cache_bytes) if settings.cache_bytes else None
