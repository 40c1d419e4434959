"""A small trained model, its images as the service stores them, and a store that holds it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.datasets.intake.intake import IntakeLimits, take_in
from app.predictions.serving.model_cache import CacheLimits, ModelCache
from app.storage import BlobStore, FilesystemStore
from app.vision.backbones.weights import BUNDLED
from app.vision.data.samples import Sample
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from tests.support.images import gif, jpeg, photo, png
from tests.support.serving import CLASSES, OpenCache, Trained
from tests.support.stages import TINY, Silent


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Images of several formats, sizes and shapes, taken in as an upload's are."""
    folder = tmp_path_factory.mktemp("trained")
    samples = []
    for label, name in enumerate(CLASSES):
        for number in range(20):
            size = ((64, 64), (90, 50), (41, 120), (33, 33), (200, 150))[number % 5]
            picture = photo(label, number, size)
            encoded = (jpeg, png, gif)[number % 3](picture.convert("L") if number % 7 == 0 else picture)
            stored = take_in(encoded, f"{name}.jpg", IntakeLimits())
            path = folder / stored.sha256
            path.write_bytes(stored.data)
            samples.append(Sample(path, label, "train" if number < 8 else "val"))
    config = TrainConfig(**TINY)  # type: ignore[arg-type]
    weights = BUNDLED / "resnet18-tiny64.safetensors"
    result = fit(config, samples, CLASSES, weights=weights, workdir=folder / "work", observer=Silent())
    return Trained(result, samples)


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "blobs")


@pytest.fixture
def open_cache(store: BlobStore, tmp_path: Path) -> Iterator[OpenCache]:
    opened = []

    def open_it(budget_bytes: int = 2**30, with_store: BlobStore | None = None, **limits: float) -> ModelCache:
        cache = ModelCache(
            with_store or store,
            CacheLimits(budget_bytes=budget_bytes, max_batch=8, **limits),  # type: ignore[arg-type]
            scratch=tmp_path / "scratch",
        )
        opened.append(cache)
        return cache

    yield open_it
    for cache in opened:
        cache.close()
