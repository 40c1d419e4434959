"""What arrives while the model is busy is answered together; the queue is bounded; a fault reaches every caller."""

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from app.core.errors import Unavailable
from app.predictions.serving.batcher import Batcher, fail
from app.predictions.serving.timing import Times
from app.predictions.serving.turns import Turns
from app.vision.engines.model import TrainedModel
from tests.support.fakes import Gated, image


@pytest.fixture
def gated() -> Iterator[Gated]:
    model = Gated()
    yield model
    model.gate.set()


def batcher_of(model: Gated, max_batch: int = 8, max_waiting: int = 16) -> Batcher:
    return Batcher(cast("TrainedModel", model), max_batch=max_batch, max_waiting=max_waiting)


def busy(model: Gated, **limits: int) -> tuple[Batcher, Any]:
    """A batcher whose model is at work on one image, and that image's future."""
    batcher = batcher_of(model, **limits)
    (future,) = batcher.submit([image(0)])
    assert model.entered.acquire(timeout=60)
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


def two_batches(gated: Gated, fill: float) -> tuple[Batcher, list[Any]]:
    """A batcher that waits `fill` seconds for a full batch, which is of two, and the futures of four images."""
    gated.gate.set()
    batcher = Batcher(gated, max_batch=2, max_waiting=16, fill=fill)  # type: ignore[arg-type]
    return batcher, batcher.admit(4)


def test_where_twice_a_batch_is_in_the_house_the_batch_is_waited_for(gated: Gated) -> None:
    batcher, futures = two_batches(gated, 60.0)
    for value in range(4):
        batcher.put(image(value), futures[value], Times())
        time.sleep(0.05)  # one that started at once would have been through
    assert [future.result(60)[0] for future in futures] == [0, 1, 2, 3]
    assert gated.batches[0] == [0, 1]
    batcher.close()


def test_a_batch_is_not_waited_for_when_the_others_come_to_nothing(gated: Gated) -> None:
    batcher, futures = two_batches(gated, 3600.0)
    batcher.put(image(1), futures[0], Times())
    futures[1].cancel()
    fail(futures[2], ValueError("unreadable"))
    assert futures[0].result(60)[0] == 1
    batcher.put(image(2), futures[3], Times())
    assert futures[3].result(60)[0] == 2
    batcher.close()


def test_a_batch_is_not_waited_for_for_long(gated: Gated) -> None:
    batcher, futures = two_batches(gated, 0.01)
    batcher.put(image(1), futures[0], Times())
    assert futures[0].result(60)[0] == 1
    for future in futures[1:]:
        future.cancel()
    batcher.close()


def test_an_hour_in_which_nobody_asked_is_not_what_an_image_takes(
    gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, first = busy(gated)
    (given_up,) = batcher.submit([image(1)])
    given_up.cancel()
    gated.gate.set()
    first.result(60)
    deadline = time.monotonic() + 60
    while batcher._waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 3600)
    batcher.submit([image(2)])[0].result(60)
    gated.gate.clear()
    kept = batcher.submit([image(3)])
    kept += batcher.admit(1, timeout=60)
    batcher.put(image(4), kept[1], Times())
    gated.gate.set()
    assert [future.result(60)[0] for future in kept] == [3, 4]
    batcher.close()


def test_who_would_not_be_answered_in_time_is_refused_at_once(gated: Gated) -> None:
    batcher, first = busy(gated)
    time.sleep(0.2)  # an image takes this long, as far as the batcher knows
    gated.gate.set()
    first.result(60)
    gated.gate.clear()
    kept = batcher.submit([image(1)])
    assert gated.entered.acquire(timeout=60)
    kept += batcher.admit(1, timeout=60)
    with pytest.raises(Unavailable, match="2 images wait") as caught:
        batcher.admit(1, timeout=0.1)
    assert caught.value.code == "overloaded"
    assert (caught.value.retry_after or 0) >= 1
    batcher.put(image(2), kept[1], Times())
    gated.gate.set()
    assert [future.result(60)[0] for future in kept] == [1, 2]
    batcher.close()


def test_a_call_may_wait_for_others_for_three_fifths_of_its_deadline(gated: Gated) -> None:
    batcher, first = busy(gated)
    batcher._seconds_an_image = 1.0  # so the one that is at work is a second of it
    with pytest.raises(Unavailable, match="1 images wait"):
        batcher.admit(1, timeout=1.6)
    (kept,) = batcher.admit(1, timeout=1.7)
    batcher.put(image(1), kept, Times())
    gated.gate.set()
    assert [future.result(60)[0] for future in (first, kept)] == [0, 1]
    batcher.close()


def test_what_an_image_takes_counts_its_decoding_where_others_are_in_the_house(gated: Gated) -> None:
    batcher = batcher_of(gated)
    gated.gate.set()
    futures = batcher.admit(2)
    batcher.put(image(0), futures[0], Times())
    futures[0].result(60)
    time.sleep(0.5)  # the second one is being decoded
    batcher.put(image(1), futures[1], Times())
    futures[1].result(60)
    assert batcher._seconds_an_image > 0.05  # a fifth of the half second, and more
    batcher.close()


def test_past_the_bound_callers_are_told_to_wait(gated: Gated) -> None:
    batcher, _ = busy(gated, max_waiting=4)
    kept = batcher.submit([image(1), image(2)])
    with pytest.raises(Unavailable, match="3 images wait") as caught:
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


def test_a_failing_model_tells_everyone_who_waits_and_answers_no_more(gated: Gated) -> None:
    failures: list[Exception] = []
    batcher = Batcher(cast("TrainedModel", gated), max_batch=2, max_waiting=16, on_failure=failures.append)
    (first,) = batcher.submit([image(0)])
    assert gated.entered.acquire(timeout=60)
    futures = batcher.submit([image(1), image(2), image(3)])
    gated.failure = RuntimeError("no memory")
    gated.gate.set()
    for future in (first, *futures, *batcher.submit([image(4)])):
        with pytest.raises(Unavailable, match="RuntimeError") as caught:
            future.result(60)
        assert caught.value.code == "model_failed"
    assert failures == [gated.failure]
    assert gated.batches == [[0]]


def test_what_its_caller_gave_up_is_not_computed(gated: Gated) -> None:
    batcher, first = busy(gated, max_waiting=3)
    given_up, kept = batcher.submit([image(1), image(2)])
    assert given_up.cancel()
    (another,) = batcher.submit([image(3)])  # the place is free again
    gated.gate.set()
    assert [future.result(60)[0] for future in (first, kept, another)] == [0, 2, 3]
    assert gated.batches == [[0], [2, 3]]
    batcher.close()


def test_retry_after_is_how_long_the_queue_takes(gated: Gated) -> None:
    batcher, first = busy(gated, max_waiting=4)
    time.sleep(0.6)
    gated.gate.set()
    first.result(60)
    gated.gate.clear()
    kept = batcher.submit([image(value) for value in range(4)])
    with pytest.raises(Unavailable) as caught:
        batcher.submit([image(9)])
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 3  # four images at 0.6 s each
    gated.gate.set()
    assert len([future.result(60) for future in kept]) == 4
    batcher.close()


def test_models_take_turns_in_the_order_in_which_they_asked() -> None:
    turns = Turns()
    one, other = Gated(), Gated()
    batchers = [Batcher(cast("TrainedModel", each), max_batch=1, max_waiting=16, turns=turns) for each in (one, other)]
    futures = batchers[0].submit([image(1)])
    assert one.entered.acquire(timeout=60)
    futures += batchers[0].submit([image(2), image(3)]) + batchers[1].submit([image(4)])
    time.sleep(0.1)
    assert other.batches == []  # one computes, the other waits
    one.gate.set()
    assert other.entered.acquire(timeout=60)  # before or after the second image, not behind a busy model for ever
    other.gate.set()
    assert [future.result(60)[0] for future in futures] == [1, 2, 3, 4]
    for batcher in batchers:
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
    (refused,) = batcher.submit([image(2)])
    with pytest.raises(Unavailable, match="unloaded") as caught:
        refused.result(60)
    assert caught.value.retry_after == 1
    gated.gate.set()
    assert [first.result(60)[0], waiting.result(60)[0]] == [0, 1]
    thread.join(60)
    assert not thread.is_alive()
