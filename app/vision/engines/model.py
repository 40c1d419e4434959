"""A trained model gives an answer for each image, whatever its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.vision.engines.engine import Engine, TorchEager
from app.vision.errors import InvalidData
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.tasks.task import Answers


class TrainedModel:
    """Holds a network in evaluation mode, its preprocessing, and what makes answers of its outputs.

    It is safe in several threads.
    """

    def __init__(self, network: Network, preprocessing: Preprocessing, answers: Answers) -> None:
        self.reference = TorchEager(network, preprocessing)
        self.network = self.reference.network
        self.engine: Engine = self.reference
        self.preprocessing = preprocessing
        self.answers = answers

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names that answers bear; none where the task has no names."""
        return self.answers.classes

    @property
    def nbytes(self) -> int:
        """Return the bytes in memory of the reference, of the engine that answers, and of what makes the answers."""
        engine = 0 if self.engine is self.reference else self.engine.nbytes
        return self.reference.nbytes + engine + self.answers.nbytes

    def prepare(self, image: Image.Image | Path | bytes) -> NDArray[np.uint8]:
        """Return an image for `answer`, uint8 of the preprocessing's `input_shape`.

        Raises InvalidData for what is not an image.
        """
        return self.preprocessing.prepare(image)

    def answer(self, batch: NDArray[np.uint8]) -> list[Any]:
        """Return the task's answer to each prepared image of a batch uint8 [N, H, W, 3].

        With the reference engine, an image's answer does not depend on the batch it comes in (to 1e-5). Raises
        InvalidData for another shape or dtype, and FloatingPointError where an answer would hold a number that is not
        finite.
        """
        shape = self.preprocessing.input_shape
        if batch.dtype != np.uint8 or batch.shape[1:] != shape:
            expected = ", ".join(map(str, shape))
            raise InvalidData(f"Expected uint8 [N, {expected}], got {batch.dtype} {list(batch.shape)}.")
        engine = self.engine  # it may be changed meanwhile
        answers: list[Any] = []
        for start in range(0, len(batch), engine.batch):
            answers += self.answers.answer(engine.outputs(batch[start : start + engine.batch]))
        return answers
