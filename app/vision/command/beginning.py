"""Reads from the options what a run begins with: configuration and weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from app.vision.backbones.weights import WeightStore, default_backbone
from app.vision.command.options import config_values
from app.vision.command.predict import model_file
from app.vision.errors import InvalidConfig, InvalidData
from app.vision.images.preprocessing import Preprocessing
from app.vision.settings.config import TrainConfig


def weight_store(options: argparse.Namespace) -> WeightStore:
    """Return where the published weights are looked for."""
    import torch.hub

    folder = options.weights if options.weights and options.weights.is_dir() else None
    # torchvision's own cache: weights that another program has fetched are not fetched again.
    return WeightStore(folder, Path(torch.hub.get_dir()) / "checkpoints", download=not options.no_download)


def config_of(options: argparse.Namespace) -> TrainConfig:
    """Return the configuration that the options ask for; raises InvalidConfig."""
    values = config_values(options)
    if options.base_path is not None:
        values = _from_base(model_file(options.base_path), values)
    elif "backbone" not in values:
        values["backbone"] = default_backbone(weight_store(options))
    if isinstance(values.get("train"), int):
        values |= {"train": "last_stages", "last_stages": values["train"]}
    config = TrainConfig.from_dict(values)
    config.resolve()  # says now what it would say after minutes of decoding
    return config


def _from_base(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given, with the base model's backbone, head and input size where nothing was."""
    from app.vision.artefacts.base_model import file_sha256
    from app.vision.artefacts.model_file import read_model_document

    document = read_model_document(path)
    if given.get("backbone", document["backbone"]) != document["backbone"]:
        raise InvalidConfig("backbone", f"{given['backbone']!r}, but {path} is a {document['backbone']}; leave it out.")
    inherited = {
        "backbone": document["backbone"],
        "head": document["head"],
        "input_size": Preprocessing.from_dict(document["preprocessing"]).input_size,
        "base_model": file_sha256(path),
    }
    return inherited | given


def learning(config: TrainConfig) -> str:
    """Return in words what learns."""
    return {"head": "the head", "all": "everything"}.get(config.train, f"the last {config.last_stages} stages")


def weights_of(options: argparse.Namespace) -> Path | WeightStore:
    """Return what the run starts from."""
    if options.base_path is not None:
        return model_file(options.base_path)
    if options.weights is not None and not options.weights.exists():
        raise InvalidData(f"--weights {options.weights}: there is no such file or folder.")
    return options.weights if options.weights and options.weights.is_file() else weight_store(options)
