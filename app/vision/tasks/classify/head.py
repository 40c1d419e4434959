"""Builds the network that classifies: a pretrained trunk, and a head that gives the logits of each class."""

from __future__ import annotations

from collections.abc import Sequence

from app.vision.backbones.catalogue import get_backbone
from app.vision.networks.base_model import BaseModel
from app.vision.networks.network import Network, build_network
from app.vision.networks.starting import start
from app.vision.settings.config import HeadConfig
from app.vision.tasks.task import Inputs


def starting_network(inputs: Inputs) -> tuple[Network, bool]:
    """Return the network that a run starts with, and whether its head is that of the base model."""
    config, base = inputs.config, inputs.base
    keep_head = base is not None and suits_head(base, inputs.classes, config.head)
    network = build_network(get_backbone(config.backbone), len(inputs.classes), config.head, seed=config.seed)
    start(network, config, inputs.weights, base, keep_head=keep_head)
    return network.to(inputs.device), keep_head


def suits_head(base: BaseModel, classes: Sequence[str], head: HeadConfig) -> bool:
    """Return whether the base model's head can go on learning: same classes in the same order, layers and pooling."""
    its = base.config.head
    same = tuple(base.document.get("classes", ())) == tuple(classes)
    return same and (its.hidden, its.pooling) == (head.hidden, head.pooling)
