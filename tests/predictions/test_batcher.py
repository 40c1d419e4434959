"""What arrives while the model is busy is answered together; the queue is bounded; a fault reaches every caller."""

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from app.core.errors import Unavailable
from app.predictions.batcher import Batcher
from app.vision.classifier import Classifier
from tests.predictions.fakes import Gated, image


@pytest.fixture
def gated() -> Iterator[Gated]:
    classifier = Gated()
    yield classifier
    classifier.gate.set()


def batcher_of(classifier: Gated, max_batch: int = 8, max_waiting: int = 16) -> Batcher:
    return Batcher(cast("Classifier", classifier), max_batch=max_batch, max_waiting=max_waiting)


def busy(classifier: Gated, **limits: int) -> tuple[Batcher, Any]:
    """A batcher whose model is at work on one image, and that image's future."""
    batcher = batcher_of(classifier, **limits)
    (future,) = batcher.submit([image(0)])
    assert classifier.entered.acquire(timeout=60)
    return batcher, future


def test_an_idle_model_starts_at_once(gated: Gated) -> None:
    batcher, first = busy(gated)
    assert gated.batches == [[0]]
    gated.gate.set()
    assert list(first.result(60)) == [0, 0]
    batcher.close()


def test_images_that_arrive_while_it_is_busy_are_answered_together(gated: Gated) -> None:
    batcher, first = busy(gated)
    futures = [future for value in (1, 2, 3) for future in batcher.submit([image(value)])]
    futures += batcher.submit([image(4), image(5)])
    gated.gate.set()
    assert [future.result(60)[0] for future in [first, *futures]] == [0, 1, 2, 3, 4, 5]
    assert gated.batches == [[0], [1, 2, 3, 4, 5]]
    batcher.close()


def test_a_batch_is_no_larger_than_it_may_be(gated: Gated) -> None:
    batcher, _ = busy(gated, max_batch=2)
    futures = batcher.submit([image(value) for value in range(1, 6)])
    gated.gate.set()
    assert [future.result(60)[0] for future in futures] == [1, 2, 3, 4, 5]
    assert gated.batches == [[0], [1, 2], [3, 4], [5]]
    batcher.close()


def test_past_the_bound_callers_are_told_to_wait(gated: Gated) -> None:
    batcher, _ = busy(gated, max_waiting=3)
    kept = batcher.submit([image(1), image(2)])
    with pytest.raises(Unavailable, match="2 images wait") as caught:
        batcher.submit([image(3), image(4)])
    assert (caught.value.code, caught.value.retry_after) == ("overloaded", 1)
    kept += batcher.submit([image(5)])  # there was room for one
    gated.gate.set()
    assert [future.result(60)[0] for future in kept] == [1, 2, 5]
    assert gated.batches == [[0], [1, 2, 5]]  # and none of the refused call's images
    batcher.close()


def test_one_request_that_is_larger_than_the_queue_is_answered(gated: Gated) -> None:
    batcher = batcher_of(gated, max_waiting=2)
    gated.gate.set()
    futures = batcher.submit([image(value) for value in range(5)])
    assert [future.result(60)[0] for future in futures] == [0, 1, 2, 3, 4]
    batcher.close()


def test_a_failing_batch_tells_each_caller_and_the_next_is_answered(gated: Gated) -> None:
    batcher, first = busy(gated)
    futures = batcher.submit([image(1), image(2)])
    gated.failure = RuntimeError("no memory")
    gated.gate.set()
    for future in (first, *futures):
        with pytest.raises(RuntimeError, match="no memory"):
            future.result(60)
    gated.failure = None
    (after,) = batcher.submit([image(7)])
    assert after.result(60)[0] == 7
    batcher.close()


def test_nothing_to_classify_is_answered_with_nothing(gated: Gated) -> None:
    batcher = batcher_of(gated)
    assert batcher.submit([]) == []
    batcher.close()
    assert gated.batches == []


def test_closing_answers_what_waits_and_takes_no_more(gated: Gated) -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "predict"}
    batcher, first = busy(gated)
    (thread,) = {thread for thread in threading.enumerate() if thread.name == "predict"} - before
    (waiting,) = batcher.submit([image(1)])
    batcher.close()
    with pytest.raises(Unavailable, match="unloaded") as caught:
        batcher.submit([image(2)])
    assert caught.value.retry_after == 1
    gated.gate.set()
    assert [first.result(60)[0], waiting.result(60)[0]] == [0, 1]
    thread.join(60)
    assert not thread.is_alive()
