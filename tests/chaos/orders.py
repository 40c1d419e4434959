"""What callers ask for, and what each must come to: drawn from a seed, checked against undisturbed runs."""

import random
from dataclasses import dataclass, field
from typing import Any, Literal

from tests import images
from tests.chaos import poison

Kind = Literal["quick", "steps", "upload", "poison"]

DATASET = "shared"
ARCHIVE = images.folder_zip({"brick": 8, "moss": 8}, split={"train": 8, "val": 4}, size=(32, 32))
_TINY = {"dataset": DATASET, "backbone": "resnet18-tiny64", "input_size": 32, "augmentation": "none"}
# The head alone, for a moment; and every layer, 12 steps long.
SPECS: dict[str, dict[str, Any]] = {
    "quick": {**_TINY, "epochs": 1, "batch_size": 8},
    "steps": {**_TINY, "train": "all", "epochs": 6, "batch_size": 8, "learning_rate": 1e-3},
}
# What is asked for beside uploads.
_TRAININGS: dict[Kind, int] = {"quick": 45, "steps": 45, "poison": 10}


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
    def list(self) -> str:
        return "uploads" if self.kind == "upload" else "trainings"

    @property
    def name(self) -> str:
        """Of an upload's dataset."""
        return f"upload-{self.number}"


class Orders:
    """An endless list of uploads, or of trainings, that depends on its seed alone."""

    def __init__(self, seed: int, what: Literal["uploads", "trainings"]) -> None:
        self.what = what
        self._random = random.Random(f"{what} {seed}")
        self._seed = seed
        self._number = 0

    def draw(self) -> Order:
        draw = self._random
        self._number += 1
        kind: Kind = "upload"
        if self.what == "trainings":
            kind = draw.choices(list(_TRAININGS), list(_TRAININGS.values()))[0]
        body = dict(SPECS.get(kind, {}))
        if kind == "poison":
            body = {**SPECS["quick"], "seed": draw.choice(poison.SEEDS)}
        return Order(
            self._number,
            kind,
            f"{self.what}-{self._seed}-{self._number}",
            body,
            cancel_after=draw.uniform(0, 12) if draw.random() < 0.12 else None,
            followed=draw.random() < 0.25,
        )
