"""Which engine to use: those that agree with the reference on held-out images, and of them the fastest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.vision.engines.engine import LARGE, Engine, Outputs
from app.vision.engines.names import REFERENCE
from app.vision.scores.ood import Novelty

LEAST_AGREEMENT = 0.995  # share of held-out images to which engine and reference give the same label
MOST_ACCURACY_DROP = 0.005
MOST_UNKNOWN_SHIFT = 0.05  # how far the share of unknown images may lie from the reference's: INT8 rounds features
BATCHES = (8, 16, LARGE)  # images at a time that are tried
# The smallest of them is taken that needs at most so many times what the best one needs: while it is computed, the next
# one's images are decoded, and fewer answers wait for one another.
CLOSE = 1.05
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found out about an engine on this machine. Times are medians in ms, of one image and of 32, which are
    given to it `batch` at a time, as is the fastest.

    `agreement` is the share of `images` that it labels as the reference does; `accuracy_drop` is the reference's
    accuracy on them minus its own; `unknown_shift` is the share of them that is unknown to it minus the reference's,
    of a model that knows unknown images. `usable` says whether it may be chosen, `detail` why not.
    """

    engine: str
    usable: bool
    images: int = 0
    agreement: float | None = None
    accuracy_drop: float | None = None
    single_ms: float | None = None
    large_ms: float | None = None
    detail: str | None = None
    unknown_shift: float | None = None
    batch: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    engine: Engine,
    reference: Outputs,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    novelty: Novelty | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Compare with the reference's outputs on held-out `images` [N, S, S, 3] with `labels` [N], and take times; the
    engine's `batch` is then the one that was the fastest.

    `turn` is entered around each computation, so that what is served meanwhile neither waits long nor disturbs.
    """
    rows = []
    for start in range(0, len(images), LARGE):
        with turn():
            rows.append(engine.outputs(images[start : start + LARGE]))
    outputs = Outputs.joined(rows)
    answered, expected = outputs.logits.argmax(axis=1), reference.logits.argmax(axis=1)
    agreement = float((answered == expected).mean())
    drop = (int((expected == labels).sum()) - int((answered == labels).sum())) / len(images)
    shift = None if novelty is None else _unknown(outputs, novelty) - _unknown(reference, novelty)
    detail = None
    if not (np.isfinite(outputs.logits).all() and np.isfinite(outputs.features).all()):
        detail = "It answers with numbers that are not finite."
    elif agreement < LEAST_AGREEMENT:
        detail = f"It labels {agreement:.2%} of the images as the reference does, less than {LEAST_AGREEMENT:.1%}."
    elif drop > MOST_ACCURACY_DROP:
        detail = f"Its accuracy is {drop:.2%} lower than the reference's, more than {MOST_ACCURACY_DROP:.1%}."
    elif shift is not None and abs(shift) > MOST_UNKNOWN_SHIFT:
        detail = (
            f"It calls {abs(shift):.2%} {'more' if shift > 0 else 'fewer'} of the images unknown than the reference"
            f" does, and {MOST_UNKNOWN_SHIFT:.0%} is the most."
        )
    single = _milliseconds(engine, images[:1], turn, clock)
    large = np.resize(images, (LARGE, *images.shape[1:]))
    times = {batch: _milliseconds(engine, large[:batch], turn, clock) * LARGE / batch for batch in BATCHES}
    engine.batch = min(batch for batch in BATCHES if times[batch] <= CLOSE * min(times.values()))
    return Measured(
        engine.name, detail is None, len(images), agreement, drop, single, times[engine.batch], detail, shift,
        engine.batch,
    )  # fmt: skip


def choose(measured: Sequence[Measured]) -> str:
    """The usable engine with the lowest product of both times (a geometric mean weighs small and large alike)."""
    timed = [
        (one.single_ms * one.large_ms, one.engine)
        for one in measured
        if one.usable and one.single_ms is not None and one.large_ms is not None
    ]
    return min(timed, default=(0.0, REFERENCE))[1]


def _unknown(outputs: Outputs, novelty: Novelty) -> float:
    return float((novelty.scores(torch.from_numpy(outputs.features)) > 1).float().mean())


def _milliseconds(
    engine: Engine,
    batch: NDArray[np.uint8],
    turn: Callable[[], AbstractContextManager[object]],
    clock: Callable[[], float],
) -> float:
    times = []
    for _ in range(ROUNDS + 1):  # the first one warms up
        with turn():
            began = clock()
            engine.outputs(batch)
            times.append(clock() - began)
    return 1000 * median(times[1:])
