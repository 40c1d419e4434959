"""A trained model that answers: pixels in, class probabilities out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from app.vision.engines import Engine, TorchEager
from app.vision.errors import InvalidData
from app.vision.network import Network
from app.vision.preprocessing import Preprocessing

CHUNK = 32  # images a forward pass; larger calls are cut, so that memory does not grow with the call


class Classifier:
    """A network in evaluation mode with its class names, preprocessing and temperature. Safe in several threads."""

    def __init__(
        self, network: Network, classes: tuple[str, ...], preprocessing: Preprocessing, temperature: float = 1.0
    ) -> None:
        self.reference = TorchEager(network, preprocessing)
        self.network = self.reference.network
        self.engine: Engine = self.reference
        self.classes = classes
        self.preprocessing = preprocessing
        self.temperature = temperature

    @property
    def nbytes(self) -> int:
        """Bytes that the weights occupy in memory, those of the reference and of the engine that answers."""
        return self.reference.nbytes + (0 if self.engine is self.reference else self.engine.nbytes)

    def prepare(self, image: Image.Image | Path | bytes) -> NDArray[np.uint8]:
        """uint8 [crop, crop, 3] for `predict`; raises InvalidData for what is not an image."""
        return self.preprocessing.crop_array(self.preprocessing.load(image))

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 [N, C], rows adding up to 1, from prepared images uint8 [N, crop, crop, 3].

        With the reference engine, an image's answer does not depend on the batch it comes in (to 1e-5). Raises
        InvalidData for another shape or dtype.
        """
        side = self.preprocessing.crop
        if batch.dtype != np.uint8 or batch.shape[1:] != (side, side, 3):
            raise InvalidData(f"Expected uint8 [N, {side}, {side}, 3], got {batch.dtype} {list(batch.shape)}.")
        if not len(batch):
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        engine = self.engine  # it may be changed meanwhile
        chunks = [batch[start : start + CHUNK] for start in range(0, len(batch), CHUNK)]
        return np.concatenate(
            [to_probabilities(torch.from_numpy(engine.logits(one)), self.temperature) for one in chunks]
        )


def to_probabilities(logits: Tensor, temperature: float = 1.0) -> NDArray[np.float32]:
    """Softmax of logits / temperature over the last axis, float32."""
    probabilities: NDArray[np.float32] = (logits.float() / temperature).softmax(dim=-1).cpu().numpy()
    return probabilities
