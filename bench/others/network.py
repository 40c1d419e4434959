"""Load what all of them serve: torchvision's ResNet in eager float32, with its published preprocessing by Pillow."""

import json
from pathlib import Path
from typing import Any

import torch
from torchvision import models, transforms


def load(folder: str) -> tuple[Any, Any, list[str]]:
    """Return the network, the transform from a PIL image to its input [3, S, S], and the classes."""
    about = json.loads((Path(folder) / "about.json").read_text())
    network = models.get_model(about["architecture"], num_classes=len(about["classes"]))
    network.load_state_dict(torch.load(Path(folder) / "weights.pt", weights_only=True))
    transform = transforms.Compose(
        [
            transforms.Resize(about["resize"]),
            transforms.CenterCrop(about["crop"]),
            transforms.ToTensor(),
            transforms.Normalize(about["mean"], about["std"]),
        ]
    )
    return network.eval(), transform, about["classes"]
