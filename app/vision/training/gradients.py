"""The gradients of one step, in parts where ranks share a batch or memory is short; and the batch that fits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.data.resident import sent
from app.vision.data.sampling import batch_count
from app.vision.errors import InvalidConfig, OutOfMemory
from app.vision.images.mixing import Mix, draw_mix, part_of
from app.vision.networks.network import learned_state, thaw
from app.vision.runtime import ranks
from app.vision.runtime.memory import is_exhaustion, largest_batch
from app.vision.settings.config import TrainConfig, batch_size_of, filled_in
from app.vision.training.checkpoint import State

if TYPE_CHECKING:
    from app.vision.training.loop import Run

LARGEST = 256  # an automatic batch is no larger: the learning rate would have to follow it
STEPS_AN_EPOCH = 8  # and there are at least so many of them, unless 32 images are more than that leaves


def add_gradients(run: Run, state: State, batches: Sequence[NDArray[np.int64]], first: int) -> tuple[float, int]:
    """Leave the mean gradient over some batches in the parameters; `first` is the number of their first in the epoch.

    Gives the sum of the losses and how many samples were right, over all ranks. Where memory runs out, the step is
    done again in parts half as large if the configuration says "shrink": their gradients add up to the same. Otherwise
    raises OutOfMemory, which names a batch that would fit.
    """
    shrinks = run.config.on_out_of_memory == "shrink" and ranks.count() == 1
    statistics = [(buffer, buffer.clone()) for buffer in run.network.trunk.buffers()] if shrinks else []
    while True:
        try:
            return _add_gradients(run, state, batches, first)
        except Exception as error:
            if not is_exhaustion(error):
                raise
        # Only here is what the failed pass held free again.
        _release(run)
        batch = max(len(rows) for rows in batches)
        if not shrinks or batch // (2 * state.position.parts) < 2:
            raise OutOfMemory(batch, None if ranks.count() > 1 else largest_fitting(run, batch // 2))
        for buffer, before in statistics:
            buffer.copy_(before)
        state.position.parts *= 2
        said = f"out of memory: batches of {batch} are computed in {state.position.parts} parts from here on."
        state.position.notes = [*(note for note in state.position.notes if not note.startswith("out of")), said]


def choose_batch(run: Run) -> int:
    """The batch size for "auto": a power of two that fits, by trying; the network is left as it was."""
    samples = len(run.labels["train"])
    most = min(LARGEST, max(32, samples // STEPS_AN_EPOCH), max(samples, 2))
    statistics = [(buffer, buffer.clone()) for buffer in run.network.buffers()]
    thaw(run.network, run.config, filled_in(run.config.epochs))
    run.network.train()
    batch = largest_fitting(run, most // ranks.count())
    for buffer, before in statistics:
        buffer.copy_(before)
    return min(ranks.gather(batch)) * ranks.count()


def largest_fitting(run: Run, most: int) -> int:
    """The largest power of two up to `most` whose forward and backward passes fit into the memory of the device."""

    def attempt(samples: int) -> None:
        rows = np.arange(samples) % len(run.labels["train"])
        try:
            _loss(run, 0, rows, None)[0].backward()  # type: ignore[no-untyped-call]
        finally:
            _release(run)

    device = next(run.network.parameters()).device
    # An optimiser's two moments and an average come with the first step.
    later = 3 * sum(tensor.nbytes for tensor in learned_state(run.network).values())
    return largest_batch(attempt, device, max(most, 1), later, tries=ranks.count() == 1)


def _release(run: Run) -> None:
    run.network.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _add_gradients(run: Run, state: State, batches: Sequence[NDArray[np.int64]], first: int) -> tuple[float, int]:
    epoch, samples = state.position.epoch, sum(len(rows) for rows in batches)
    # Added up where they are computed: to ask a GPU for a number is to wait until it has done all it was told.
    sums = torch.zeros(2, dtype=torch.float64, device=next(run.network.parameters()).device)
    for number, rows in enumerate(batches, first):
        how = draw_mix(run.config, epoch, number, len(rows))
        for start, stop in _parts(len(rows), state.position.parts):
            loss, right = _loss(run, epoch, *part_of(rows, how, start, stop))
            part = loss * ((stop - start) / samples)
            (part if state.scaler is None else state.scaler.scale(part)).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach().double() * (stop - start), right.double()])
    ranks.add_up_gradients(run.network.parameters())
    loss_sum, total = ranks.add_up(sums.cpu()).tolist()
    return loss_sum, int(total)


def _parts(samples: int, parts: int) -> list[tuple[int, int]]:
    """Where the parts of this rank's share of a batch begin and end. A batch norm needs two samples a part."""
    start, stop = samples * ranks.number() // ranks.count(), samples * (ranks.number() + 1) // ranks.count()
    parts = max(1, min(parts, (stop - start) // 2))
    edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))


def _loss(run: Run, epoch: int, rows: NDArray[np.int64], how: Mix | None) -> tuple[Tensor, Tensor]:
    """The mean loss of some training rows, and how many of them are right; both scalars on the device."""
    logits = run.feed.logits(epoch, rows, how)
    target = sent(run.labels["train"][rows], logits.device)
    if how is None:
        return run.loss(logits, target), (logits.argmax(dim=1) == target).sum()
    own, other = target[: len(logits)], target[torch.from_numpy(how.partner).to(target.device)]
    loss = how.share * run.loss(logits, own) + (1 - how.share) * run.loss(logits, other)
    most = own if how.share >= 0.5 else other  # what the mixed sample shows most of
    return loss, (logits.argmax(dim=1) == most).sum()


def check_shares(config: TrainConfig, samples: int) -> None:
    """Every rank has a part of every batch; raises InvalidConfig where it cannot."""
    size = ranks.count() if config.batch_size == "auto" else batch_size_of(config)
    smallest = samples // batch_count(samples, size)
    if smallest < ranks.count():
        raise InvalidConfig(
            "batch_size",
            f"{config.batch_size}: a batch of {smallest} images cannot be shared by {ranks.count()} processes; use a"
            " larger one, or fewer processes.",
        )
