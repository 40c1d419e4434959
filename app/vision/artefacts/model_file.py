"""A trained model as one safetensors file: tensors, classes, preprocessing, what its answers mean, configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.vision.artefacts.tensorfile import read_document, read_tensors, write_tensors
from app.vision.backbones.catalogue import get_backbone
from app.vision.errors import DamagedArtefact, VisionError
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network, build_network
from app.vision.scores.ood import Novelty
from app.vision.settings.config import TrainConfig
from app.vision.tasks.classify.classifier import Classifier

KIND = "graftwork.model"
_NOVELTY = "novelty."  # before the names of tensors that are not the network's


def save_model(
    path: Path,
    network: Network,
    *,
    config: TrainConfig,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    metrics: dict[str, Any],
    temperature: float = 1.0,
    novelty: Novelty | None = None,
    decisions: dict[str, Any] | None = None,
) -> None:
    """Write the model; afterwards `path` is whole, or as it was. `decisions` are those of `selective_prediction`."""
    document = {
        "backbone": config.backbone,
        "head": config.to_dict()["head"],
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "temperature": temperature,
        "config": config.to_dict(),
        "metrics": metrics,
        "novelty": {"limit": novelty.limit} if novelty else None,
        "decisions": decisions,
    }
    statistics = {_NOVELTY + name: tensor for name, tensor in novelty.tensors().items()} if novelty else {}
    write_tensors(path, KIND, network.state_dict() | statistics, document)


def load_model(path: Path, device: str = "cpu") -> Classifier:
    """The classifier that `save_model` wrote; raises DamagedArtefact for a damaged or foreign file."""
    tensors, document = read_tensors(path, KIND)
    try:
        config = TrainConfig.from_dict(document["config"])
        classes = tuple(str(name) for name in document["classes"])
        preprocessing = Preprocessing.from_dict(document["preprocessing"])
        temperature = float(document.get("temperature", 1.0))  # models from before it was fitted have none
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature {temperature}")
        statistics = {name[len(_NOVELTY) :]: tensors.pop(name) for name in list(tensors) if name.startswith(_NOVELTY)}
        # Models from before there was such a thing have neither; they answer as ever.
        novelty = Novelty.of_tensors(statistics, document["novelty"]) if document.get("novelty") else None
        decisions = document.get("decisions")
        thresholds = tuple(decisions["thresholds"][name] for name in classes) if decisions else None
        network = build_network(get_backbone(config.backbone), len(classes), config.head)
        network.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, VisionError) as error:
        raise DamagedArtefact(f"{path.name} does not describe a model this version can build: {error}") from error
    network.to(device)
    return Classifier(network, classes, preprocessing, temperature, novelty, thresholds)


def read_model_document(path: Path) -> dict[str, Any]:
    """What the file says about itself: backbone, head, classes, preprocessing, temperature, config, metrics, decisions
    and the limit of novelty."""
    return read_document(path, KIND)
