"""Reads an earlier model for a new run to start from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.vision.artefacts.model_file import KIND
from app.vision.artefacts.tensorfile import read_tensors
from app.vision.errors import DamagedArtefact, WeightsUnavailable
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.base_model import BaseModel
from app.vision.settings.config import TrainConfig


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of all bytes of a file in lower-case hex: what `TrainConfig.base_model` holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_base_model(path: Path, config: TrainConfig) -> BaseModel:
    """Return the model file that `config.base_model` names; raises WeightsUnavailable for any other."""
    try:
        if file_sha256(path) != config.base_model:
            raise DamagedArtefact(f"the SHA-256 of its bytes is not {config.base_model}")
        tensors, document = read_tensors(path, KIND)
        base = TrainConfig.from_dict(document["config"])
        if base.backbone != config.backbone:
            raise DamagedArtefact(f"it is a {base.backbone}, not a {config.backbone}")
        return BaseModel(base, Preprocessing.from_dict(document["preprocessing"]), document, tensors)
    except (DamagedArtefact, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{path} is not the model to start from ({error})"
        raise WeightsUnavailable(config.backbone, "the model file", "", [path.parent], reason) from error
