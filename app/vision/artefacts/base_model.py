"""Start from an earlier model instead of published weights: its trunk, preprocessing and, where it fits, its head."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from app.vision.artefacts.model_file import KIND
from app.vision.artefacts.tensorfile import read_tensors
from app.vision.errors import DamagedArtefact, WeightsUnavailable
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.settings.config import HeadConfig, TrainConfig


@dataclass(frozen=True)
class BaseModel:
    """What a model file holds that a new run may start from."""

    config: TrainConfig
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    tensors: dict[str, Tensor] = field(repr=False)

    def suits_head(self, classes: Sequence[str], head: HeadConfig) -> bool:
        """Whether its head can go on learning: same classes in the same order, same layers, same pooling."""
        mine = self.config.head
        return self.classes == tuple(classes) and (mine.hidden, mine.pooling) == (head.hidden, head.pooling)


def file_sha256(path: Path) -> str:
    """Of all its bytes, in lower-case hex: what `TrainConfig.base_model` holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_base_model(path: Path, config: TrainConfig) -> BaseModel:
    """The model file that `config.base_model` names; raises WeightsUnavailable for any other."""
    try:
        if file_sha256(path) != config.base_model:
            raise DamagedArtefact(f"the SHA-256 of its bytes is not {config.base_model}")
        tensors, document = read_tensors(path, KIND)
        base = TrainConfig.from_dict(document["config"])
        if base.backbone != config.backbone:
            raise DamagedArtefact(f"it is a {base.backbone}, not a {config.backbone}")
        return BaseModel(base, tuple(document["classes"]), Preprocessing.from_dict(document["preprocessing"]), tensors)
    except (DamagedArtefact, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{path} is not the model to start from ({error})"
        raise WeightsUnavailable(config.backbone, "the model file", "", [path.parent], reason) from error


def graft(network: Network, base: BaseModel, *, head: bool) -> None:
    """Put the base model's trunk, and with `head` its head, into a network that was just built."""
    for part, module in (("trunk.", network.trunk), ("head.", network.head)):
        if part == "trunk." or head:
            state = {name[len(part) :]: tensor for name, tensor in base.tensors.items() if name.startswith(part)}
            module.load_state_dict(state, assign=True)
