"""A trained model that answers: pixels in, class probabilities out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from app.vision.engines.engine import LARGE, Engine, Outputs, TorchEager
from app.vision.errors import InvalidData
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.scores.ood import Novelty

CHUNK = LARGE  # images a forward pass


class Classifier:
    """A network in evaluation mode with its class names, preprocessing and temperature. Safe in several threads.

    With `novelty` it knows images that are like none it was trained on; `thresholds` are the least probabilities at
    which each class is accepted, of a model that was trained towards a precision.
    """

    def __init__(
        self,
        network: Network,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        temperature: float = 1.0,
        novelty: Novelty | None = None,
        thresholds: tuple[float | None, ...] | None = None,
    ) -> None:
        self.reference = TorchEager(network, preprocessing)
        self.network = self.reference.network
        self.engine: Engine = self.reference
        self.classes = classes
        self.preprocessing = preprocessing
        self.temperature = temperature
        self.novelty = novelty
        self.thresholds = thresholds

    @property
    def nbytes(self) -> int:
        """Bytes that the weights occupy in memory, those of the reference and of the engine that answers."""
        engine = 0 if self.engine is self.reference else self.engine.nbytes
        return self.reference.nbytes + engine + (self.novelty.nbytes if self.novelty else 0)

    def prepare(self, image: Image.Image | Path | bytes) -> NDArray[np.uint8]:
        """uint8 [crop, crop, 3] for `predict`; raises InvalidData for what is not an image."""
        return self.preprocessing.crop_array(self.preprocessing.load(image))

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 [N, C], rows adding up to 1, from prepared images uint8 [N, crop, crop, 3].

        With the reference engine, an image's answer does not depend on the batch it comes in (to 1e-5). Raises
        InvalidData for another shape or dtype.
        """
        return self.answer(batch)[:, : len(self.classes)]

    def answer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What `predict` gives and, of a model with `novelty`, a last column: the score past which, 1, an image is
        unknown. float32 [N, C] or [N, C + 1]."""
        side = self.preprocessing.crop
        if batch.dtype != np.uint8 or batch.shape[1:] != (side, side, 3):
            raise InvalidData(f"Expected uint8 [N, {side}, {side}, 3], got {batch.dtype} {list(batch.shape)}.")
        if not len(batch):
            return np.zeros((0, len(self.classes) + (self.novelty is not None)), dtype=np.float32)
        engine = self.engine  # it may be changed meanwhile
        chunks = [batch[start : start + engine.batch] for start in range(0, len(batch), engine.batch)]
        return np.concatenate([self._columns(engine.outputs(one)) for one in chunks])

    def _columns(self, outputs: Outputs) -> NDArray[np.float32]:
        probabilities = to_probabilities(torch.from_numpy(outputs.logits), self.temperature)
        if self.novelty is None:
            return probabilities
        return np.column_stack([probabilities, self.novelty.scores(torch.from_numpy(outputs.features)).numpy()])


def to_probabilities(logits: Tensor, temperature: float = 1.0) -> NDArray[np.float32]:
    """Softmax of logits / temperature over the last axis, float32."""
    probabilities: NDArray[np.float32] = (logits.float() / temperature).softmax(dim=-1).cpu().numpy()
    return probabilities
