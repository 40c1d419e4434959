"""A network's outputs for a batch of images are arrays by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# float32 [N, ...] each: what the head gives (`logits` of a classifier) and the `features` [N, F] behind it.
Outputs: TypeAlias = dict[str, NDArray[np.float32]]


def as_arrays(tensors: Mapping[str, Tensor]) -> Outputs:
    """Return the tensors as float32 arrays, wherever they lie."""
    return {name: tensor.float().cpu().numpy() for name, tensor in tensors.items()}


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Return the outputs of several batches as if they had been one."""
    return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
