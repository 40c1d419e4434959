"""Computes the gradients of a step, in parts where ranks share it or memory is short, and finds a batch that fits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.vision.errors import OutOfMemory
from app.vision.images.mixing import draw_mix, part_of
from app.vision.networks.network import learned_state, thaw
from app.vision.runtime import ranks
from app.vision.runtime.memory import is_exhaustion, largest_batch
from app.vision.settings.config import filled_in
from app.vision.tasks.task import Batch, Run, Task
from app.vision.training.checkpoint import State

LARGEST = 256  # an automatic batch is no larger: the learning rate would have to follow it
STEPS_AN_EPOCH = 8  # and there are at least so many of them, unless 32 images are more than that leaves


def add_gradients(
    task: Task[Any], run: Run, state: State, batches: Sequence[NDArray[np.int64]], first: int
) -> list[float]:
    """Leave the mean gradient over some batches in the parameters; `first` is the number of their first in the epoch.

    Returns the sum over the samples of the losses, and of each of the task's counts, over all ranks. Where memory runs
    out, the step is done again in parts half as large if the configuration says "shrink": their gradients add up to the
    same. Otherwise raises OutOfMemory, which names a batch that would fit.
    """
    shrinks = run.config.on_out_of_memory == "shrink" and ranks.count() == 1
    statistics = [(buffer, buffer.clone()) for buffer in run.network.trunk.buffers()] if shrinks else []
    while True:
        try:
            return _add_gradients(task, run, state, batches, first)
        except Exception as error:
            if not is_exhaustion(error):
                raise
        # Only here is what the failed pass held free again.
        _release(run)
        batch = max(len(rows) for rows in batches)
        if not shrinks or batch // (2 * state.position.parts) < 2:
            raise OutOfMemory(batch, None if ranks.count() > 1 else largest_fitting(task, run, batch // 2))
        for buffer, before in statistics:
            buffer.copy_(before)
        state.position.parts *= 2
        said = f"out of memory: batches of {batch} are computed in {state.position.parts} parts from here on."
        state.position.notes = [*(note for note in state.position.notes if not note.startswith("out of")), said]


def choose_batch(task: Task[Any], run: Run) -> int:
    """Return the batch size for "auto": a power of two that fits, by trying; the network is left as it was."""
    samples = len(run.groups)
    most = min(LARGEST, max(32, samples // STEPS_AN_EPOCH), max(samples, 2))
    statistics = [(buffer, buffer.clone()) for buffer in run.network.buffers()]
    thaw(run.network, run.config, filled_in(run.config.epochs))
    run.network.train()
    batch = largest_fitting(task, run, most // ranks.count())
    for buffer, before in statistics:
        buffer.copy_(before)
    return min(ranks.gather(batch)) * ranks.count()


def largest_fitting(task: Task[Any], run: Run, most: int) -> int:
    """Return the largest power of two up to `most` whose forward and backward passes fit into the device's memory."""

    def attempt(samples: int) -> None:
        rows = np.arange(samples) % len(run.groups)
        try:
            task.loss(run, Batch(0, rows, None)).loss.backward()  # type: ignore[no-untyped-call]
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


def _add_gradients(
    task: Task[Any], run: Run, state: State, batches: Sequence[NDArray[np.int64]], first: int
) -> list[float]:
    epoch, samples = state.position.epoch, sum(len(rows) for rows in batches)
    # Added up where they are computed: to ask a GPU for a number is to wait until it has done all it was told.
    device = next(run.network.parameters()).device
    sums = torch.zeros(1 + len(run.counts), dtype=torch.float64, device=device)
    for number, rows in enumerate(batches, first):
        how = draw_mix(run.config, epoch, number, len(rows))
        for start, stop in _parts(len(rows), state.position.parts):
            loss, counts = task.loss(run, Batch(epoch, *part_of(rows, how, start, stop)))
            part = loss * ((stop - start) / samples)
            (part if state.scaler is None else state.scaler.scale(part)).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach().double() * (stop - start), *(count.double() for count in counts)])
    ranks.add_up_gradients(run.network.parameters())
    return [float(one) for one in ranks.add_up(sums.cpu()).tolist()]


def _parts(samples: int, parts: int) -> list[tuple[int, int]]:
    """Return where the parts of this rank's share of a batch begin and end. A batch norm needs two samples a part."""
    start, stop = samples * ranks.number() // ranks.count(), samples * (ranks.number() + 1) // ranks.count()
    parts = max(1, min(parts, (stop - start) // 2))
    edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))
