"""A trained model that answers: pixels in, class probabilities out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from app.vision.errors import InvalidData
from app.vision.network import Network
from app.vision.preprocessing import Preprocessing

CHUNK = 32  # images a forward pass; larger calls are cut, so that memory does not grow with the call


class Classifier:
    """A network in evaluation mode with its class names, preprocessing and temperature. Safe in several threads."""

    def __init__(
        self, network: Network, classes: tuple[str, ...], preprocessing: Preprocessing, temperature: float = 1.0
    ) -> None:
        self.network = network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.classes = classes
        self.preprocessing = preprocessing
        self.temperature = temperature

    @property
    def nbytes(self) -> int:
        """Bytes that the weights occupy in memory."""
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def prepare(self, image: Image.Image | Path | bytes) -> NDArray[np.uint8]:
        """uint8 [crop, crop, 3] for `predict`; raises InvalidData for what is not an image."""
        return self.preprocessing.crop_array(self.preprocessing.load(image))

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 [N, C], rows adding up to 1, from prepared images uint8 [N, crop, crop, 3].

        An image's answer does not depend on the batch it comes in (to 1e-5). Raises InvalidData for another shape
        or dtype.
        """
        side = self.preprocessing.crop
        if batch.dtype != np.uint8 or batch.shape[1:] != (side, side, 3):
            raise InvalidData(f"Expected uint8 [N, {side}, {side}, 3], got {batch.dtype} {list(batch.shape)}.")
        if not len(batch):
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        device = next(self.network.parameters()).device
        with torch.inference_mode(), full_precision(device):
            parts = []
            for start in range(0, len(batch), CHUNK):
                # A copy where the array is a view or read-only (a memory map): torch wants neither.
                pixels = torch.from_numpy(np.array(batch[start : start + CHUNK])).to(device)
                parts.append(to_probabilities(self.network(self.preprocessing.normalize(pixels)), self.temperature))
        return np.concatenate(parts)


def to_probabilities(logits: Tensor, temperature: float = 1.0) -> NDArray[np.float32]:
    """Softmax of logits / temperature over the last axis, float32."""
    probabilities: NDArray[np.float32] = (logits.float() / temperature).softmax(dim=-1).cpu().numpy()
    return probabilities


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Plain float32 convolutions: TF32, a GPU's default, would let answers vary by more than is promised."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
