"""Decides the order of the samples in each epoch, and the random state of each step."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

SHUFFLE = 1 << 32  # keeps the stream of random numbers that shuffles apart from the one that augments


def batches(
    seed: int, epoch: int, labels: NDArray[np.int64], batch_size: int, *, balanced: bool = False
) -> list[NDArray[np.int64]]:
    """Return the rows of each batch of an epoch, shuffled; sizes differ by one at most.

    Batch norm cannot learn from a single sample, so a batch holds at least two wherever there are two, even if
    `batch_size` is 1 or leaves a remainder of one. With `balanced` an epoch is as long as ever but shows every class
    equally often: rows of rare classes come several times, and of common ones only some, others each epoch.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch + SHUFFLE], dtype=np.uint64)))
    samples = len(labels)
    count = batch_count(samples, batch_size)
    order = generator.permutation(_balanced(generator, labels)) if balanced else generator.permutation(samples)
    return np.array_split(order, count)


def batch_count(samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch; the smallest of them holds `samples` // this."""
    return max(1, min(math.ceil(samples / batch_size), samples // 2))


def _balanced(generator: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return as many rows as there are labels, of each class equally many (to one).

    No row of a class comes twice as often as it need be.
    """
    present = generator.permutation(np.unique(labels))
    parts = []
    for place, label in enumerate(present):
        quota = len(labels) // len(present) + (place < len(labels) % len(present))
        rows = np.flatnonzero(labels == label)
        parts.append(np.concatenate([generator.permutation(rows) for _ in range(-(-quota // len(rows)))])[:quota])
    return np.concatenate(parts)


def seed_step(seed: int, epoch: int, step: int, rank: int = 0) -> None:
    """Seed torch for one step (dropout draws from it), so that a resumed run draws what an unbroken one would.

    Ranks draw differently: each has other samples of the batch before it.
    """
    entropy = [seed, epoch, step, rank] if rank else [seed, epoch, step]
    number = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
    # Not `torch.manual_seed`: for each kind of accelerator that is not in use it formats the stack, in every step.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(number)
