"""The range test trains a little at a rate that climbs, and suggests a learning rate by its losses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from app.vision.data.sampling import batches
from app.vision.errors import Diverged, Stopped
from app.vision.networks.network import learned_state, thaw
from app.vision.runtime import ranks
from app.vision.runtime.precision import make_scaler
from app.vision.settings.config import batch_size_of, filled_in
from app.vision.tasks.task import Run, Task
from app.vision.training.averaging import write_state
from app.vision.training.checkpoint import Position, State
from app.vision.training.loop import take_step
from app.vision.training.optimisation import make_optimizer, set_rate

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 100
SMOOTHING = 0.9  # the mean of the losses remembers some ten steps
HOPELESS = 4.0  # times the lowest smoothed loss: what comes after says nothing more
BEFORE_MINIMUM = 10.0


@dataclass(frozen=True)
class RateSearch:
    """Holds what a range test found: `rates[i]` was tried in step i, after which the smoothed loss was `losses[i]`."""

    suggestion: float
    rates: list[float]
    losses: list[float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def search_rate(task: Task[Any], run: Run) -> RateSearch:
    """Try rates from 1e-6 to 10 on what learns in the first epoch; the network is left as it was, to the bit.

    The range test of Smith (2017, arXiv:1506.01186), climbing exponentially, with losses smoothed and the test ended at
    four times the lowest, as in fastai's `lr_find`. The suggestion is a tenth of the rate at which the loss was lowest,
    fastai's "minimum": there it falls, well before it blows up. Depends on the configuration, the data and the seed
    alone. Raises Stopped when the observer asks for it.
    """
    run.progress.report("training", 0.0)
    before = {name: tensor.detach().clone() for name, tensor in learned_state(run.network).items()}
    try:
        rates, losses = _climb(task, run)
    finally:
        write_state(run.network, before)
        run.network.zero_grad(set_to_none=True)
    best = min(range(len(losses)), key=lambda step: losses[step], default=0)
    suggestion = max(rates[best] / BEFORE_MINIMUM, LOWEST) if losses else LOWEST
    return RateSearch(suggestion, rates[: len(losses)], losses)


def _climb(task: Task[Any], run: Run) -> tuple[list[float], list[float]]:
    """Return the rates and the smoothed losses, until the end or until they are hopeless."""
    config = run.config
    optimizer = make_optimizer(run.network, config.optimizer, filled_in(config.weight_decay), config.layer_decay)
    scaler = make_scaler(config.precision, next(run.network.parameters()).device)
    state = State(run.network, optimizer, None, scaler, Position(counts=dict.fromkeys(run.counts, 0.0)))
    position = state.position
    rates = [LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(STEPS)]
    losses: list[float] = []
    mean = 0.0
    thaw(run.network, config, 0)
    run.network.train()
    order: list[Any] = []
    for rate in rates:
        if not order:  # a new pass over the images
            balanced = config.imbalance == "sampling"
            order = batches(config.seed, position.epoch, run.groups, batch_size_of(config), balanced=balanced)
        parts, order = order[: config.accumulate], order[config.accumulate :]
        set_rate(optimizer, rate)
        seen, summed = position.seen, position.loss_sum
        try:
            take_step(task, run, state, parts, position.step * config.accumulate)
        except Diverged:
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * (position.loss_sum - summed) / (position.seen - seen)
        losses.append(mean / (1 - SMOOTHING ** (len(losses) + 1)))  # as if the mean had not begun at zero
        if losses[-1] > HOPELESS * min(losses):
            break
        if ranks.any_of(run.observer.should_stop()):
            raise Stopped(checkpoint_written=False)
        position.step += 1
        if not order:
            position.next_epoch()
    return rates, losses
