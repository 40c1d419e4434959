"""The training loop: epochs over a feed, validation, checkpoints, and the best epoch kept."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from app.vision.checkpoint import Position, read_checkpoint, write_checkpoint
from app.vision.config import TrainConfig, settled
from app.vision.errors import Diverged, Stopped
from app.vision.evaluation import evaluate
from app.vision.feeds import Feed
from app.vision.network import Network, learned_state
from app.vision.optimisation import batches, learning_rate, make_optimizer, seed_step
from app.vision.progress import Progress
from app.vision.run import Observer

REST_S = 5.0  # a checkpoint at the end of an epoch is skipped if the last one is younger than this
LONGEST_S = 600.0  # and one is written within an epoch that lasts longer


@dataclass
class Run:
    """What the loop works with; `identity` ties a checkpoint to its configuration and data."""

    config: TrainConfig
    network: Network
    feed: Feed
    labels: Mapping[str, NDArray[np.int64]]
    workdir: Path
    observer: Observer
    progress: Progress
    identity: dict[str, Any]


def train(run: Run, resume: Path | None) -> Position:
    """Train to the end and leave the best epoch's weights in the network; raises Diverged or Stopped."""
    config = run.config
    optimizer = make_optimizer(run.network, config.optimizer, settled(config.weight_decay))
    position, best = Position(), dict[str, Tensor]()
    epochs = settled(config.epochs)
    if resume is not None:
        position, best = read_checkpoint(resume, run.identity, run.network, optimizer)
    written_at = time.monotonic()
    while position.epoch < epochs:
        written_at = _epoch(run, optimizer, position, best, written_at)
        _validate(run, position, best)
        position.next_epoch()
        if time.monotonic() - written_at >= REST_S and position.epoch < epochs:
            _checkpoint(run, optimizer, position, best)
            written_at = time.monotonic()
    current = learned_state(run.network)
    with torch.no_grad():
        for name, tensor in best.items():
            current[name].copy_(tensor)
    return position


def _epoch(
    run: Run, optimizer: torch.optim.Optimizer, position: Position, best: dict[str, Tensor], written_at: float
) -> float:
    """The steps of one epoch that are not done yet; gives the time of the last checkpoint."""
    config, labels = run.config, run.labels["train"]
    order = batches(config.seed, position.epoch, len(labels), settled(config.batch_size))
    steps = settled(config.epochs) * len(order)
    run.network.train()
    for step in range(position.step, len(order)):
        began = time.monotonic()
        done = position.epoch * len(order) + step
        _set_rate(optimizer, config, done, steps)
        _step(run, optimizer, position, order[step], labels)
        position.step = step + 1
        position.seconds += time.monotonic() - began
        run.progress.report("training", (done + 1) / steps)
        stop = run.observer.should_stop()
        if stop or time.monotonic() - written_at >= LONGEST_S:
            _checkpoint(run, optimizer, position, best)
            written_at = time.monotonic()
        if stop:
            raise Stopped(checkpoint_written=True)
    return written_at


def _step(
    run: Run,
    optimizer: torch.optim.Optimizer,
    position: Position,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> None:
    seed_step(run.config.seed, position.epoch, position.step)
    logits = run.feed.logits(position.epoch, rows)
    target = torch.from_numpy(labels[rows]).to(logits.device)
    loss = functional.cross_entropy(logits, target)
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(position.epoch + 1, position.step + 1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    position.loss_sum += value * len(rows)
    position.correct += int((logits.argmax(dim=1) == target).sum())
    position.seen += len(rows)


def _set_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settled(config.learning_rate), config.schedule, step, steps)


def _validate(run: Run, position: Position, best: dict[str, Tensor]) -> None:
    """Score the epoch, tell the observer, and keep the weights if they are the best so far."""
    probabilities = run.feed.probabilities("val")
    classes = [str(label) for label in range(probabilities.shape[1])]
    scores = evaluate(probabilities, run.labels["val"], classes)
    if not math.isfinite(scores["log_loss"]):
        raise Diverged(position.epoch + 1, position.step)
    accuracy, loss = scores["accuracy"], scores["log_loss"]
    if (accuracy, -loss) > (position.best_accuracy, -position.best_loss):
        position.best_epoch, position.best_accuracy, position.best_loss = position.epoch, accuracy, loss
        best.update({name: tensor.detach().cpu().clone() for name, tensor in learned_state(run.network).items()})
    config = run.config
    epochs = settled(config.epochs)
    last = (position.epoch + 1) * position.step - 1
    metrics = {
        "epoch": position.epoch + 1,
        "epochs": epochs,
        "train_loss": position.loss_sum / position.seen,
        "train_accuracy": position.correct / position.seen,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "val_macro_f1": scores["macro_f1"],
        "learning_rate": learning_rate(settled(config.learning_rate), config.schedule, last, epochs * position.step),
        "images_per_s": position.seen / max(position.seconds, 1e-9),
        "duration_s": position.seconds,
    }
    position.history.append(metrics)
    run.observer.epoch(dict(metrics))


def _checkpoint(run: Run, optimizer: torch.optim.Optimizer, position: Position, best: dict[str, Tensor]) -> None:
    path = run.workdir / "checkpoint.safetensors"
    write_checkpoint(path, run.identity, run.network, optimizer, position, best)
    run.observer.checkpoint(path, position.epoch + 1, position.step)
    path.unlink(missing_ok=True)
