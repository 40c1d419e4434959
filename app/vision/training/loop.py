"""The training loop runs epochs over a feed, validates, writes checkpoints, and keeps the best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.data.sampling import batches, seed_step
from app.vision.errors import Diverged, Stopped
from app.vision.networks.network import learned_state, thaw
from app.vision.runtime import ranks
from app.vision.runtime.precision import make_scaler
from app.vision.settings.config import TrainConfig, batch_size_of, filled_in
from app.vision.tasks.task import Run, Task
from app.vision.training.averaging import MovingAverage, write_state
from app.vision.training.checkpoint import Position, State, read_checkpoint, write_checkpoint
from app.vision.training.divergence import exploded, is_finite
from app.vision.training.gradients import add_gradients, choose_batch
from app.vision.training.optimisation import apply_gradients, make_optimizer, set_rate
from app.vision.training.schedules import rate_of, watch_plateau

REST_S = 5.0  # a checkpoint at the end of an epoch is skipped if the last one is younger than this
LONGEST_S = 600.0  # and one is written within an epoch that lasts longer


def train(task: Task[Any], run: Run, resume: Path | None) -> Position:
    """Train to the end, leave the best epoch's weights in the network, and return the position at the end.

    Raises Diverged and Stopped.
    """
    config = run.config
    optimizer = make_optimizer(run.network, config.optimizer, filled_in(config.weight_decay), config.layer_decay)
    average = MovingAverage(run.network, config.ema) if config.ema else None
    scaler = make_scaler(config.precision, next(run.network.parameters()).device)
    state = State(run.network, optimizer, average, scaler, Position(counts=dict.fromkeys(run.counts, 0.0)))
    if (checkpoint := _for_all(resume, run.workdir)) is not None:
        read_checkpoint(checkpoint, run.identity, state)
        state.kept = state.position.epoch + 1, state.position.step
    if config.batch_size == "auto":
        state.position.batch_size = state.position.batch_size or choose_batch(task, run)
        run.config = config = replace(config, batch_size=state.position.batch_size)
    ranks.copy_from_first(learned_state(run.network).values())
    written_at = time.monotonic()
    while not _finished(config, state.position):
        written_at = _epoch(task, run, state, written_at)
        _validate(task, run, state)
        state.position.next_epoch()
        # While the loss looks lost, the checkpoint before it is not to be pushed out.
        due = time.monotonic() - written_at >= REST_S and not state.position.lost_steps
        if due and not _finished(config, state.position):
            _checkpoint(run, state)
            written_at = time.monotonic()
    write_state(run.network, state.best)
    return state.position


def _for_all(checkpoint: Path | None, workdir: Path) -> Path | None:
    """Return the first rank's checkpoint, if it has one, wherever this rank runs."""
    if ranks.count() == 1:
        return checkpoint
    content = ranks.agree(checkpoint.read_bytes() if checkpoint is not None and ranks.is_first() else None)
    if ranks.is_first() or content is None:
        return checkpoint
    copy = workdir / f"checkpoint-{ranks.number()}.safetensors"
    copy.write_bytes(content)
    return copy


def _finished(config: TrainConfig, position: Position) -> bool:
    """Return whether all epochs are done, or `patience` of them since the best one."""
    waited = position.epoch - 1 - position.best_epoch
    return position.epoch >= filled_in(config.epochs) or 0 < config.patience <= waited


def _epoch(task: Task[Any], run: Run, state: State, written_at: float) -> float:
    """Take the steps of one epoch that are not done yet, and return the time of the last checkpoint."""
    config, position = run.config, state.position
    balanced = config.imbalance == "sampling"
    order = batches(config.seed, position.epoch, run.groups, batch_size_of(config), balanced=balanced)
    per_epoch = -(-len(order) // config.accumulate)
    steps = filled_in(config.epochs) * per_epoch
    thaw(run.network, config, position.epoch)
    run.network.train()
    whole = ranks.count() == 1 and position.parts == 1
    run.feed.expect(position.epoch, order[position.step * config.accumulate :] if whole else [])
    for step in range(position.step, per_epoch):
        began = time.monotonic()
        done = position.epoch * per_epoch + step
        set_rate(state.optimizer, rate_of(config, position, done, steps))
        first = step * config.accumulate
        take_step(task, run, state, order[first : first + config.accumulate], first)
        if state.average is not None:
            state.average.update(run.network, done + 1)
        position.step = step + 1
        position.seconds += time.monotonic() - began
        run.progress.report("training", (done + 1) / steps)
        stop = ranks.any_of(run.observer.should_stop())
        if stop or (time.monotonic() - written_at >= LONGEST_S and not position.lost_steps):
            _checkpoint(run, state)
            written_at = time.monotonic()
        if stop:
            raise Stopped(checkpoint_written=True)
    return written_at


def take_step(task: Task[Any], run: Run, state: State, parts: Sequence[NDArray[np.int64]], first: int) -> None:
    """Take one step on the mean gradient of several batches; `first` is the number of their first in the epoch."""
    config, position = run.config, state.position
    samples = sum(len(rows) for rows in parts)
    seed_step(config.seed, position.epoch, position.step, ranks.number())
    state.optimizer.zero_grad(set_to_none=True)
    loss_sum, *counted = add_gradients(task, run, state, parts, first)
    if not math.isfinite(loss_sum):
        raise _diverged(state, position.step + 1, "The loss is not finite")
    position.loss_sum += loss_sum
    for name, count in zip(run.counts, counted, strict=True):
        position.counts[name] += count
    position.seen += samples
    said = run.hopeless(position.watched, loss_sum / samples, [count / samples for count in counted])
    position.lost_steps = position.lost_steps + 1 if said else 0
    if said and exploded(position):
        raise _diverged(state, position.step + 1, said)
    apply_gradients(state.optimizer, state.scaler, clip_norm=config.clip_norm, l1=config.l1)


def _validate(task: Task[Any], run: Run, state: State) -> None:
    """Validate the epoch, tell the observer, and keep the weights if they are the best so far."""
    config, position = run.config, state.position
    with nullcontext() if state.average is None else state.average.applied(run.network):
        found = ranks.agree(task.validate(run))
        if not math.isfinite(found.loss) or not is_finite(run.network):
            raise _diverged(state, position.step, "The weights are not finite")
        if position.best_epoch < 0 or found.better_than(position.history[position.best_epoch]):
            position.best_epoch = position.epoch
            weights = learned_state(run.network)
            state.best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
    epochs = filled_in(config.epochs)
    last = (position.epoch + 1) * position.step - 1
    record = {
        "epoch": position.epoch + 1,
        "epochs": epochs,
        "train_loss": position.loss_sum / position.seen,
        **{name: position.counts[key] / position.seen for key, name in run.counts.items()},
        **found.record,
        "learning_rate": rate_of(config, position, last, epochs * position.step),
        "images_per_s": position.seen / max(position.seconds, 1e-9),
        "duration_s": position.seconds,
    }
    if config.schedule == "plateau":
        watch_plateau(position, found.loss)
    position.history.append(record)
    run.observer.epoch(dict(record))


def _checkpoint(run: Run, state: State) -> None:
    """Write one and hand it over, of weights that are finite: an infinite one may not have reached the loss yet."""
    if not ranks.is_first():
        return
    position = state.position
    if not is_finite(run.network):
        raise _diverged(state, position.step, "The weights are not finite")
    path = run.workdir / "checkpoint.safetensors"
    write_checkpoint(path, run.identity, state)
    best = position.best_epoch != state.kept_best
    run.observer.checkpoint(path, position.epoch + 1, position.step, best)
    state.kept_best, state.kept = position.best_epoch, (position.epoch + 1, position.step)
    path.unlink(missing_ok=True)


def _diverged(state: State, step: int, what: str) -> Diverged:
    return Diverged(state.position.epoch + 1, step, what, state.kept)
