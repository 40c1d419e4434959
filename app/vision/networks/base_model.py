"""A base model gives a new run its trunk, its preprocessing and, where it fits, its head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.settings.config import TrainConfig


@dataclass(frozen=True)
class BaseModel:
    """Holds what a new run may start from; `document` is all that the model file says of itself."""

    config: TrainConfig
    preprocessing: Preprocessing
    document: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)


def graft(network: Network, base: BaseModel, *, head: bool) -> None:
    """Put the base model's trunk, and with `head` its head, into a network that was just built."""
    for part, module in (("trunk.", network.trunk), ("head.", network.head)):
        if part == "trunk." or head:
            state = {name[len(part) :]: tensor for name, tensor in base.tensors.items() if name.startswith(part)}
            module.load_state_dict(state, assign=True)
