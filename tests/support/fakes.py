"""A hand-written model: it answers what its images hold, and only when it is let."""

import threading
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray


class Gated:
    """Stands in for `TrainedModel`: each call is noted and waits for the gate. An image of value v gets [v, 0]."""

    classes = ("a", "b")
    engine = SimpleNamespace(batch=32)
    nbytes = 1

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.failure: Exception | None = None

    def answer(self, batch: NDArray[np.uint8]) -> list[list[float]]:
        values = [int(image.flat[0]) for image in batch]
        self.batches.append(values)
        self.entered.release()
        assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        return [[value, 0] for value in values]


def image(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), value, dtype=np.uint8)
