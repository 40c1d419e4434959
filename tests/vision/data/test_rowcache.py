"""Rows on disk: found again, bounded, whole or gone, and shared by several processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from app.vision.data.rowcache import MOST_SEGMENTS, Add, Kind, RowCache, Rows
from app.vision.data.segments import SegmentWriter
from app.vision.errors import Stopped

KIND = Kind("numbers", {"of": "test"}, (5,), "float32")
SEGMENT = SegmentWriter.size(4, KIND.row_bytes)


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def row(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.arange(5, dtype=np.float32) + 10 * number


def ask(cache: RowCache, numbers: Sequence[int], kind: Kind = KIND) -> tuple[Rows, list[int]]:
    """The rows, and the numbers that had to be computed."""
    computed: list[int] = []

    def compute(places: list[int], add: Add) -> None:
        for place in places:
            computed.append(numbers[place])
            add(row(numbers[place])[None])

    rows = cache.rows(kind, [key(number) for number in numbers], compute)
    assert np.array_equal(rows.read(np.arange(len(numbers))), np.stack([row(number) for number in numbers]))
    return rows, computed


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    assert ask(RowCache(tmp_path), [1, 2, 3])[1] == [1, 2, 3]
    assert ask(RowCache(tmp_path), [3, 1])[1] == []
    assert ask(RowCache(tmp_path), [4, 3, 5, 1, 4])[1] == [4, 5]
    assert ask(RowCache(tmp_path), [5, 1, 2], Kind("numbers", {"of": "other"}, (5,), "float32"))[1] == [5, 1, 2]
    assert RowCache(tmp_path).missing(KIND, [key(1), key(9)]) == [1]


def test_the_least_recently_used_goes_first_and_the_limit_holds(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, 3 * SEGMENT)
    for first in (0, 4, 8):
        ask(cache, range(first, first + 4))
        time.sleep(0.02)
    ask(cache, [0])  # now 4..7 were not used for longest
    time.sleep(0.02)
    ask(cache, range(12, 16))
    assert cache.nbytes() == 3 * SEGMENT
    assert cache.missing(KIND, [key(number) for number in (0, 4, 8, 12)]) == [1]


def test_more_than_the_limit_is_served_and_not_kept(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, 2 * SEGMENT)
    ask(cache, range(4))
    ask(cache, range(10, 40))
    assert cache.nbytes() == SEGMENT
    assert not list(tmp_path.rglob("*.tmp"))
    assert ask(cache, range(4))[1] == []


def test_what_is_evicted_while_in_use_stays_readable(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, SEGMENT)
    held, _ = ask(cache, range(4))
    ask(cache, range(10, 14))
    assert cache.missing(KIND, [key(0)]) == [0]
    assert np.array_equal(held.read(np.array([2])), [row(2)])


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


DAMAGE: list[Callable[[Path], object]] = [
    lambda path: flip(path, 3),  # a row
    lambda path: flip(path, 4 * KIND.row_bytes + 1),  # a key
    lambda path: flip(path, -1),  # the trailer
    lambda path: os.truncate(path, path.stat().st_size - 7),
    lambda path: path.write_bytes(b""),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_segment_is_noticed_and_computed_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    ask(RowCache(tmp_path), range(4))
    (path,) = tmp_path.rglob("*.rows")
    damage(path)
    assert ask(RowCache(tmp_path), range(4))[1] == [0, 1, 2, 3]
    assert ask(RowCache(tmp_path), range(4))[1] == []
    assert not path.exists()


def test_many_small_segments_become_one(tmp_path: Path) -> None:
    for number in range(MOST_SEGMENTS + 6):
        ask(RowCache(tmp_path), [number])
    everything = range(MOST_SEGMENTS + 6)
    assert len(list(tmp_path.rglob("*.rows"))) <= MOST_SEGMENTS
    assert ask(RowCache(tmp_path), everything)[1] == list(range(len(everything) - MOST_SEGMENTS // 2 - 5))
    assert ask(RowCache(tmp_path), everything)[1] == []


def test_a_run_that_stops_leaves_what_it_had_and_one_that_fails_nothing(tmp_path: Path) -> None:
    def stops(places: list[int], add: Add) -> None:
        add(np.stack([row(1), row(2)]))
        raise Stopped(checkpoint_written=False)

    def fails(places: list[int], add: Add) -> None:
        add(np.stack([row(1), row(2)]))
        raise ZeroDivisionError

    cache, keys = RowCache(tmp_path), [key(1), key(2), key(3)]
    with pytest.raises(ZeroDivisionError):
        cache.rows(KIND, keys, fails)
    assert cache.nbytes() == 0
    assert not list(tmp_path.rglob("*.tmp"))
    with pytest.raises(Stopped):
        cache.rows(KIND, keys, stops)
    assert ask(cache, [1, 2, 3])[1] == [3]


def _slowly(folder: Path, began: multiprocessing.synchronize.Event, go: multiprocessing.synchronize.Event) -> None:
    def compute(places: list[int], add: Add) -> None:
        add(row(1)[None])
        began.set()
        go.wait(60)
        add(row(2)[None])

    RowCache(folder).rows(KIND, [key(1), key(2)], compute)


def test_two_processes_compute_once_and_the_second_may_give_up(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    began, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_slowly, args=(tmp_path, began, go))
    other.start()
    assert began.wait(60)
    asked = iter([False, True])
    with pytest.raises(Stopped):
        RowCache(tmp_path).rows(KIND, [key(1)], lambda places, add: pytest.fail("computed"), lambda: next(asked))
    go.set()
    assert ask(RowCache(tmp_path), [2, 1])[1] == []
    other.join(60)
    assert other.exitcode == 0


def test_a_process_that_dies_holds_no_lock_and_its_half_written_file_is_removed(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    began, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_slowly, args=(tmp_path, began, go))
    other.start()
    assert began.wait(60)
    assert other.pid is not None
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    ask(RowCache(tmp_path), [7], Kind("numbers", {"of": "other"}, (5,), "float32"))
    assert len(list(tmp_path.rglob("*.tmp"))) == 1  # its writer lives
    os.kill(other.pid, signal.SIGKILL)
    other.join(60)
    assert ask(RowCache(tmp_path), [1, 2])[1] == [1, 2]
    assert not list(tmp_path.rglob("*.tmp"))
