"""Learning-rate schedules, batches, and progress."""

from __future__ import annotations

import numpy as np
import pytest

from app.vision.optimisation import batches, learning_rate
from app.vision.progress import Progress
from tests.vision.pictures import Recorder


def test_every_schedule_warms_up_to_its_peak_and_ends_where_it_should() -> None:
    for schedule, end in (("constant", 1.0), ("step", 0.01), ("cosine", 0.0)):
        rates = [learning_rate(1.0, schedule, step, 200) for step in range(200)]  # type: ignore[arg-type]
        assert rates[:10] == sorted(rates[:10])
        assert rates[0] < 0.1
        assert max(rates) == 1.0
        assert rates[10:] == sorted(rates[10:], reverse=True)
        assert rates[-1] == pytest.approx(end, abs=1e-3)


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 8), (2, 1), (3, 2), (9, 8), (64, 8), (65, 8), (5, 100)])
def test_batches_cover_every_sample_once_and_are_never_single(samples: int, batch_size: int) -> None:
    order = batches(3, 1, samples, batch_size)
    assert sorted(np.concatenate(order)) == list(range(samples))
    sizes = [len(rows) for rows in order]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(2, samples)
    assert max(sizes) <= max(batch_size, 3)


def test_the_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(batches(seed, epoch, 50, 8)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_progress_covers_the_run_and_never_falls() -> None:
    recorder = Recorder()
    progress = Progress(recorder, {"a": 0.25, "b": 0.75})
    for phase, done in (("a", 0.0), ("a", 1.0), ("b", 0.0), ("b", 1.0), ("b", 0.5)):
        progress.report(phase, done)
    assert [(phase, fraction) for phase, fraction, _ in recorder.phases] == [
        ("a", 0.0),
        ("a", 0.25),
        ("b", 0.25),
        ("b", 1.0),
    ]
    assert recorder.phases[0][2] is None
    assert recorder.phases[-1][2] == 0.0
