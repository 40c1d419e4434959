"""What callers ask for, and what each must come to: drawn from a seed, checked against undisturbed runs."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.chaos import poison
from tests.support import images

Kind = Literal["quick", "steps", "poison", "upload", "predict"]
List = Literal["uploads", "trainings", "predictions"]

DATASET = "shared"
ARCHIVE = images.folder_zip({"brick": 8, "moss": 8}, split={"train": 8, "val": 4}, size=(32, 32))
_TINY = {"dataset": DATASET, "backbone": "resnet18-tiny64", "input_size": 32, "augmentation": "none"}
# The head alone, for a moment; and every layer, 12 steps long.
TRAININGS: dict[Kind, dict[str, Any]] = {
    "quick": {**_TINY, "epochs": 1, "batch_size": 8},
    "steps": {**_TINY, "train": "all", "epochs": 6, "batch_size": 8, "learning_rate": 1e-3},
}
# How often each kind is drawn in each list.
_KINDS: dict[List, dict[Kind, int]] = {
    "uploads": {"upload": 1},
    "trainings": {"quick": 45, "steps": 45, "poison": 10},
    "predictions": {"predict": 1},
}
_PASSES = 12  # over the dataset's images, of a job that predicts: long enough to be broken off between two batches


def prediction(model_id: str, sha256s: Sequence[str]) -> dict[str, Any]:
    """What is asked of a job that classifies these images again and again."""
    return {"model": model_id, "images": [*sha256s] * _PASSES, "probabilities": "all"}


@dataclass
class Order:
    """One thing that a caller asked for, and all that it was told of it."""

    number: int
    kind: Kind
    key: str  # the Idempotency-Key under which it is asked for again until it is accepted
    body: dict[str, Any] = field(default_factory=dict)
    cancel_after: float | None = None  # seconds after it was accepted
    followed: bool = False  # whether somebody reads its event stream
    job_id: str | None = None
    accepted_at: float = 0.0
    cancelled_by_us: bool = False
    cancel_answers: list[int] = field(default_factory=list)
    cancelled_at: float | None = None  # seconds since 1970, when that was confirmed
    ended: bool = False

    @property
    def list(self) -> List:
        return next(name for name, kinds in _KINDS.items() if self.kind in kinds)

    @property
    def name(self) -> str:
        """Of an upload's dataset."""
        return f"upload-{self.number}"


class Orders:
    """An endless list of orders that depends on its seed alone."""

    def __init__(self, seed: int, what: List, specs: Mapping[Kind, dict[str, Any]]) -> None:
        self.what = what
        self._random = random.Random(f"{what} {seed}")
        self._seed = seed
        self._specs = specs
        self._number = 0

    def draw(self) -> Order:
        draw = self._random
        self._number += 1
        kinds = _KINDS[self.what]
        kind = draw.choices(list(kinds), list(kinds.values()))[0]
        body = dict(self._specs.get(kind, {}))
        if kind == "poison":
            body = {**self._specs["quick"], "seed": draw.choice(poison.SEEDS)}
        return Order(
            self._number,
            kind,
            f"{self.what}-{self._seed}-{self._number}",
            body,
            cancel_after=draw.uniform(0, 12) if draw.random() < 0.12 else None,
            followed=draw.random() < 0.25,
        )
