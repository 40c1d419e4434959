"""A checkpoint holds the state of an unfinished run in one file, complete enough to go on bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.vision.artefacts.tensorfile import read_tensors, write_tensors
from app.vision.errors import DamagedArtefact, VisionError
from app.vision.networks.network import Network, learned_state
from app.vision.settings.config import TrainConfig
from app.vision.training.averaging import MovingAverage

KIND = "graftwork.checkpoint"
RETUNABLE = frozenset({"learning_rate", "clip_norm"})


@dataclass
class Position:
    """Says how far a run is. `epoch` counts from 0; `step` steps of it are done, over which the sums run.

    `counts` are the sums of what the task counts in a step, and `watched` is what it remembers to tell a hopeless loss.
    A checkpoint holds both beside the other fields, each under its own key.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    seconds: float = 0.0
    best_epoch: int = -1
    lowest_loss: float = float("inf")
    flat_epochs: int = 0  # since the validation loss was lowest; for the "plateau" schedule
    plateau_factor: float = 1.0
    watched: dict[str, float] = field(default_factory=dict)
    lost_steps: int = 0  # in a row, whose loss was hopeless
    batch_size: int = 0  # what "auto" came to
    parts: int = 1  # in which every batch is computed, for want of memory
    notes: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def next_epoch(self) -> None:
        """Start the following epoch with empty sums."""
        self.epoch += 1
        self.step, self.loss_sum, self.seen, self.seconds = 0, 0.0, 0, 0.0
        self.counts = dict.fromkeys(self.counts, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads, JSON-able."""
        document = asdict(self)
        return {**document.pop("counts"), **document.pop("watched"), **document}

    @classmethod
    def from_dict(cls, document: dict[str, Any], counts: Iterable[str]) -> Position:
        """Return the position that `to_dict` wrote; `counts` are the keys of what the task counts."""
        known = {one.name for one in fields(cls)}
        own = {name: value for name, value in document.items() if name in known}
        rest = {name: value for name, value in document.items() if name not in known}
        counted = {name: rest.pop(name) for name in counts}
        return cls(**own, counts=counted, watched=rest)


@dataclass
class State:
    """Holds everything that a run changes. `best` holds the weights of the best epoch so far, on the CPU.

    `kept_best` is the epoch whose weights were the best when last a checkpoint was written, `kept` where that was.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler | None = None
    position: Position = field(default_factory=Position)
    best: dict[str, Tensor] = field(default_factory=dict)
    kept_best: int = -1
    kept: tuple[int, int] | None = None  # epoch and step, as the observer was told


def write_checkpoint(path: Path, identity: dict[str, Any], state: State) -> None:
    """Write what training changes: the frozen part comes from the published weights again."""
    tensors = {f"model.{name}": tensor for name, tensor in learned_state(state.network).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    if state.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in state.average.tensors.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in slots.items() if isinstance(value, Tensor)}
    document = {"identity": identity, "position": state.position.to_dict()}
    if state.scaler is not None:
        document["scaler"] = state.scaler.state_dict()
    write_tensors(path, KIND, tensors, document)


def read_checkpoint(path: Path, identity: dict[str, Any], state: State) -> None:
    """Put the state of a run that has not begun back where the checkpoint left it.

    Raises DamagedArtefact for a file that is damaged or comes from a run with another `identity`. `RETUNABLE` fields
    of the configuration may differ: that is the way out of a run that diverged.
    """
    tensors, document = read_tensors(path, KIND)
    if _comparable(document.get("identity", {})) != _comparable(identity):
        raise DamagedArtefact(f"{path.name} belongs to a run with another configuration or other data.")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "average": {}, "optimizer": {}}
    try:
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        _restore(learned_state(state.network), parts["model"])
        if state.average is not None:
            _restore(state.average.tensors, parts["average"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, field_name = name.partition(".")
            slots.setdefault(int(index), {})[field_name] = tensor
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        _lay_out(state.optimizer)
        if state.scaler is not None:
            state.scaler.load_state_dict(document["scaler"])
        state.position = Position.from_dict(document["position"], state.position.counts)
        state.best = parts["best"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedArtefact(f"{path.name} does not fit this run: {error}") from error


def _comparable(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity with newer fields at their defaults, and without those that may differ."""
    try:
        config = TrainConfig.from_dict(identity["config"]).resolve().to_dict()
    except (KeyError, TypeError, AttributeError, VisionError):  # no configuration that this version knows
        return identity
    return identity | {"config": {name: value for name, value in config.items() if name not in RETUNABLE}}


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Have the optimiser's tensors lie in memory as their parameters do: its one-kernel form asks for that."""
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                slots[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


@torch.no_grad()
def _restore(current: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    if stored.keys() != current.keys():
        raise KeyError("the tensors are not those of this network")
    for name, tensor in stored.items():
        current[name].copy_(tensor)
