"""Rows in the memory of a device that has room for them, and how small things get to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.data.rowcache import Rows
from app.vision.runtime.memory import available

DEVICES = frozenset({"cuda"})
SHARE = 0.25  # of the memory that is free: the rest is for the network and its batches
_CHUNK = 32  # rows read at a time


class Resident:
    """Decoded images or features, in the memory of a GPU that has room for all of them, else on the disk."""

    def __init__(self, rows: Rows, device: torch.device, small: int = 0) -> None:
        """Up to `small` bytes lie in memory on a CPU, too."""
        self._rows = rows
        self._device = device
        self._resident: Tensor | None = None
        room = SHARE * available(device) if device.type in DEVICES else 0
        if 0 < rows.nbytes <= max(room, small):
            for start in range(0, len(rows), _CHUNK):
                part = torch.from_numpy(rows.read(np.arange(start, min(start + _CHUNK, len(rows)))))
                if self._resident is None:
                    self._resident = part.new_empty((len(rows), *part.shape[1:]), device=device)
                self._resident[start : start + len(part)] = part

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Return [n, *shape], where they lie."""
        if self._resident is None:
            return torch.from_numpy(self._rows.read(rows))
        return self._resident[sent(rows, self._device)]


def sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return the array on the device, without waiting for what a GPU still has to do."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
