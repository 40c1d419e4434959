"""A run starts from published weights, or from those of an earlier model."""

from __future__ import annotations

from pathlib import Path

import torch

from app.vision.backbones.catalogue import Backbone, get_backbone
from app.vision.backbones.weights import WeightStore, load_state_dict
from app.vision.errors import WeightsUnavailable
from app.vision.networks.base_model import BaseModel, graft
from app.vision.networks.batch_norm import share_batch_norms
from app.vision.networks.network import Network, load_trunk, set_trainable
from app.vision.runtime import ranks
from app.vision.settings.config import TrainConfig


def start(
    network: Network, config: TrainConfig, weights: Path | WeightStore, base: BaseModel | None, *, keep_head: bool
) -> None:
    """Fill a network that was just built, and let learn what the configuration says.

    The trunk is that of `base` where there is one, and with `keep_head` the head too. Raises WeightsUnavailable.
    """
    backbone = get_backbone(config.backbone)
    if base is not None:
        graft(network, base, head=keep_head)
    else:
        path = _obtain(weights, backbone)
        try:
            load_trunk(network, backbone, load_state_dict(path, backbone))
        except ValueError as error:
            raise _mismatch(backbone, path, error) from error
    set_trainable(network, config)
    if ranks.count() > 1:
        share_batch_norms(network)
    network.to(memory_format=torch.channels_last)


def _obtain(weights: Path | WeightStore, backbone: Backbone) -> Path:
    """Return the file with the weights.

    The first of several ranks looks before the others, so that one of them downloads.
    """
    if isinstance(weights, Path):
        return weights
    path = weights.obtain(backbone) if ranks.is_first() else None
    ranks.wait()
    return path or weights.obtain(backbone)


def _mismatch(backbone: Backbone, path: Path, error: ValueError) -> WeightsUnavailable:
    reason = f"{path} holds the weights of another network ({error})"
    return WeightsUnavailable(backbone.name, backbone.weights_file, backbone.weights_url, [path.parent], reason)
