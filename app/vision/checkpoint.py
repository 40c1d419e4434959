"""The state of an unfinished run in one file, complete enough to go on bit for bit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.vision.errors import DamagedArtefact
from app.vision.network import Network, learned_state
from app.vision.tensorfile import read_tensors, write_tensors

KIND = "graftwork.checkpoint"


@dataclass
class Position:
    """How far a run is. `epoch` counts from 0; `step` steps of it are done, over which the sums run."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    best_epoch: int = -1
    best_accuracy: float = -1.0
    best_loss: float = float("inf")
    history: list[dict[str, Any]] = field(default_factory=list)

    def next_epoch(self) -> None:
        """Start the following epoch with empty sums."""
        self.epoch += 1
        self.step, self.loss_sum, self.correct, self.seen, self.seconds = 0, 0.0, 0, 0, 0.0


def write_checkpoint(
    path: Path,
    identity: dict[str, Any],
    network: Network,
    optimizer: torch.optim.Optimizer,
    position: Position,
    best: dict[str, Tensor],
) -> None:
    """Write what training changes: the frozen part comes from the published weights again."""
    tensors = {f"model.{name}": tensor for name, tensor in learned_state(network).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    write_tensors(path, KIND, tensors, {"identity": identity, "position": asdict(position)})


def read_checkpoint(
    path: Path, identity: dict[str, Any], network: Network, optimizer: torch.optim.Optimizer
) -> tuple[Position, dict[str, Tensor]]:
    """Put network and optimiser back where they were; gives the position and the best state so far.

    Raises DamagedArtefact for a file that is damaged or comes from a run with another `identity`.
    """
    tensors, document = read_tensors(path, KIND)
    if document.get("identity") != identity:
        raise DamagedArtefact(f"{path.name} belongs to a run with another configuration or other data.")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    try:
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        current = learned_state(network)
        if parts["model"].keys() != current.keys():
            raise KeyError("the tensors are not those of this network")
        with torch.no_grad():
            for name, tensor in parts["model"].items():
                current[name].copy_(tensor)
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, field_name = name.partition(".")
            states.setdefault(int(index), {})[field_name] = tensor
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        return Position(**document["position"]), parts["best"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedArtefact(f"{path.name} does not fit this run: {error}") from error
