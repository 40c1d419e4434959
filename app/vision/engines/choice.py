"""Chooses an engine: of those that agree with the reference on held-out images the fastest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.engines.engine import LARGE, Engine
from app.vision.engines.names import REFERENCE
from app.vision.networks.outputs import Outputs, joined
from app.vision.tasks.task import Agreement

BATCHES = (8, 16, LARGE)  # images at a time that are tried
# The smallest of them is taken that needs at most so many times what the best one needs: while it is computed, the next
# one's images are decoded, and fewer answers wait for one another.
CLOSE = 1.05
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """Holds what was found out about an engine on this machine. Times are medians in ms, of one image and of 32.

    The 32 are given to it `batch` at a time, as is the fastest. `agreement`, `accuracy_drop` and `unknown_shift` are
    those of `Agreement`, on `images` held-out images. `usable` says whether it may be chosen, `detail` why not.
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
    images: NDArray[np.uint8],
    agreement: Callable[[Outputs], Agreement],
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Compare an engine with the reference and take times; its `batch` is then the one that was the fastest.

    `agreement` compares outputs on the held-out `images` [N, H, W, 3] with the reference's, as the model's task does.
    `turn` is entered around each computation, so that what is served meanwhile neither waits long nor disturbs.
    """
    outputs = outputs_of(engine, images, turn)
    found = agreement(outputs)
    detail = found.detail
    if not all(np.isfinite(array).all() for array in outputs.values()):
        detail = "It answers with numbers that are not finite."
    single = _milliseconds(engine, images[:1], turn, clock)
    large = np.resize(images, (LARGE, *images.shape[1:]))
    times = {batch: _milliseconds(engine, large[:batch], turn, clock) * LARGE / batch for batch in BATCHES}
    engine.batch = min(batch for batch in BATCHES if times[batch] <= CLOSE * min(times.values()))
    return Measured(
        engine=engine.name,
        usable=detail is None,
        images=len(images),
        agreement=found.agreement,
        accuracy_drop=found.accuracy_drop,
        single_ms=single,
        large_ms=times[engine.batch],
        detail=detail,
        unknown_shift=found.unknown_shift,
        batch=engine.batch,
    )


def outputs_of(
    engine: Engine, images: NDArray[np.uint8], turn: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Outputs:
    """Return an engine's outputs of any number of images, computed `LARGE` at a time, each in its `turn`."""
    parts = []
    for start in range(0, len(images), LARGE):
        with turn():
            parts.append(engine.outputs(images[start : start + LARGE]))
    return joined(parts)


def choose(measured: Sequence[Measured]) -> str:
    """Return the usable engine with the lowest product of both times.

    A geometric mean weighs small and large alike.
    """
    timed = [
        (one.single_ms * one.large_ms, one.engine)
        for one in measured
        if one.usable and one.single_ms is not None and one.large_ms is not None
    ]
    return min(timed, default=(0.0, REFERENCE))[1]


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
