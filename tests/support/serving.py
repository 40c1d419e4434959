"""Shared names of the tests of serving: a trained model with its images, and how a cache loads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from app.predictions.references import ModelReference
from app.predictions.serving.batcher import Batcher
from app.predictions.serving.model_cache import ModelCache
from app.vision.data.samples import Sample
from app.vision.training.result import FitResult

CLASSES = ("ants", "bees", "wasps")

OpenCache = Callable[..., ModelCache]


@dataclass(frozen=True)
class Trained:
    result: FitResult
    samples: list[Sample]  # their files hold the stored bytes


def reference(sha256: str, **known: Any) -> ModelReference:
    return ModelReference(uuid4(), sha256, **known)


def loaded(cache: ModelCache, sha256: str, **known: Any) -> Batcher:
    """The model's batcher, once it is loaded; nobody keeps it."""
    with cache.lease(reference(sha256, **known)) as loading:
        return loading.result(60)
