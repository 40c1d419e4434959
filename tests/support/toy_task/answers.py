"""What the toy task says of an image: its brightness."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from app.vision.networks.outputs import Outputs
    from app.vision.tasks.task import Agreement, AnswerOptions

CLOSE = 0.1  # how far two answers may be apart and still be the same


class BrightnessAnswers:
    """Gives the head's only number, and its distance from the mean of the training images."""

    classes: tuple[str, ...] = ()
    thresholds = None
    nbytes = 0

    def __init__(self, mean: float) -> None:
        self.mean = mean

    def answer(self, outputs: Outputs) -> list[float]:
        """Return one brightness an image."""
        found = outputs["brightness"][:, 0]
        if not np.isfinite(found).all():
            raise FloatingPointError("a brightness that is not finite")
        return [float(one) for one in found]

    def describe(
        self, answer: float, options: AnswerOptions, thresholds: Sequence[float | None] | None
    ) -> dict[str, Any]:
        """Return the brightness, and how much more it is than usual."""
        return {"brightness": answer, "above_mean": answer - self.mean}

    def text(self, described: Mapping[str, Any]) -> str:
        """Return the brightness in per cent."""
        return f"{described['brightness']:.0%}"

    def line(self, described: Mapping[str, Any], image: str) -> str:
        """Return the same as a line of JSON."""
        return json.dumps({"image": image, **described})

    def tensor(
        self, name: str, answers: Sequence[float], thresholds: Sequence[float | None] | None
    ) -> NDArray[np.float32]:
        """Return the brightness of each image."""
        return np.array(answers, dtype=np.float32)

    def agreement(self, outputs: Outputs, reference: Outputs, labels: NDArray[np.int64]) -> Agreement:
        """Compare the brightness of each image with the reference's."""
        from app.vision.tasks.task import Agreement

        apart = np.abs(outputs["brightness"] - reference["brightness"])
        worst = float(apart.max())
        return Agreement(float((apart <= CLOSE).mean()), f"It is off by {worst:.3f}." if worst > CLOSE else None)
