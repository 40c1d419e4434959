"""The order of samples, as they are and with every class shown equally often."""

from __future__ import annotations

import numpy as np
import pytest

from app.vision.data.sampling import batches

LABELS = np.repeat([0, 1, 2], [70, 25, 5])


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 8), (2, 1), (3, 2), (9, 8), (64, 8), (65, 8), (5, 100)])
def test_batches_cover_every_sample_once_and_are_never_single(samples: int, batch_size: int) -> None:
    order = batches(3, 1, np.zeros(samples, np.int64), batch_size)
    assert sorted(np.concatenate(order)) == list(range(samples))
    sizes = [len(rows) for rows in order]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(2, samples)
    assert max(sizes) <= max(batch_size, 3)


def test_the_order_depends_on_seed_and_epoch() -> None:
    def plain(seed: int, epoch: int) -> list[int]:
        rows: list[int] = np.concatenate(batches(seed, epoch, np.zeros(50, np.int64), 8)).tolist()
        return rows

    assert plain(1, 1) == plain(1, 1)
    assert plain(1, 1) != plain(1, 2)
    assert plain(1, 1) != plain(2, 1)


def order(epoch: int, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.concatenate(batches(seed, epoch, LABELS, 8, balanced=True))


def test_every_class_is_shown_equally_often() -> None:
    rows = order(0)
    assert len(rows) == len(LABELS)
    assert sorted(np.bincount(LABELS[rows]).tolist()) == [33, 33, 34]
    # A batch of eight holds all three classes as a rule: they are shuffled, not one after the other.
    assert np.mean([len(set(LABELS[part])) for part in np.array_split(rows, 13)]) > 2.5


def test_no_row_comes_much_more_often_than_its_class_needs() -> None:
    counts = np.bincount(order(0), minlength=100)
    for label in range(3):
        mine = counts[label == LABELS]
        assert mine.max() - mine.min() <= 1


def test_every_sample_has_its_turn_in_some_epoch_and_epochs_differ() -> None:
    assert order(3).tolist() == order(3).tolist()
    assert order(3).tolist() != order(4).tolist()
    assert order(3).tolist() != order(3, seed=2).tolist()
    assert set(np.concatenate([order(epoch) for epoch in range(15)]).tolist()) == set(range(100))
