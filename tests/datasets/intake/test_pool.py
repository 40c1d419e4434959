"""Images read by processes of their own: the same results, and nothing that an image does to one reaches the others."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from app.datasets.intake.intake import IntakeLimits, RejectedFile, StoredImage, take_in, take_in_all
from app.datasets.intake.pool import IntakePool
from tests.support.images import gif, jpeg, photo, png

LIMITS = IntakeLimits(max_pixels=10_000, cpu_seconds=1)
FILES = [
    (jpeg(photo(0, 0)), "a.jpg"),
    (png(photo(0, 1)), "b.png"),
    (gif(photo(0, 2)), "c.jpg"),
    (b"text", "d.jpg"),
    (b"", "e.jpg"),
    (png(photo(0, 3, (200, 200))), "f.png"),
    (jpeg(photo(0, 4))[:200], "g\n\ud800.jpg"),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[IntakePool]:
    with IntakePool(LIMITS, 2) as pool:
        yield pool


def outcome(read: object, data: bytes, name: str) -> object:
    try:
        return read(data, name)  # type: ignore[operator]
    except RejectedFile as rejected:
        return (rejected.code, rejected.reason, rejected.remedy)


def test_it_answers_as_taking_in_does(pool: IntakePool) -> None:
    expected = [outcome(lambda d, n: take_in(d, n, LIMITS), *file) for file in FILES]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda file: outcome(pool.take_in, *file), FILES * 4)) == expected * 4
    assert len({type(one) for one in expected}) == 2


@pytest.mark.parametrize(
    ("number", "says"), [(signal.SIGXCPU, "more than 1 s of processor time"), (signal.SIGSEGV, "died of it (SIGSEGV)")]
)
def test_an_image_that_kills_its_process_is_rejected_alone(number: signal.Signals, says: str) -> None:
    with IntakePool(LIMITS, 1) as pool:
        pool.take_in(*FILES[0])
        (process,) = pool._all
        os.kill(process.pid, number)
        process.wait()
        with pytest.raises(RejectedFile) as caught:
            pool.take_in(*FILES[0])
        assert caught.value.code == "image_too_costly"
        assert says in caught.value.reason
        assert pool.take_in(*FILES[0]).width == 64  # a new process has taken its place


def test_several_files_are_answered_in_their_order(pool: IntakePool) -> None:
    here = [one if isinstance(one, StoredImage) else one.code for one in take_in_all(FILES, LIMITS)]
    there = [one if isinstance(one, StoredImage) else one.code for one in pool.take_in_all(FILES)]
    assert there == here
    sent = {data for data, _ in FILES}
    assert {one.data in sent for one in here if isinstance(one, StoredImage)} == {True, False}
    assert pool.take_in_all([]) == []


def test_one_that_kills_the_process_spoils_none_of_the_others() -> None:
    """A picture that takes longer than its second of processor time, among others."""
    slow = png(Image.effect_noise((4000, 4000), 90))
    limits = IntakeLimits(max_pixels=10**9, cpu_seconds=0)
    others = [(jpeg(photo(0, number)), f"{number}.jpg") for number in range(4)]
    with IntakePool(limits, 1) as pool:
        taken = pool.take_in_all([*others[:2], (slow, "slow.png"), *others[2:]])
    codes = [one.code if isinstance(one, RejectedFile) else "kept" for one in taken]
    assert codes == ["kept", "kept", "image_too_costly", "kept", "kept"]


def test_a_process_that_cannot_start_is_no_images_fault() -> None:
    with IntakePool(LIMITS, 1, python="/bin/false") as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"cannot start \(exit status 1\)"):
                pool.take_in(*FILES[0])


def test_the_process_is_bounded_and_knows_nothing(pool: IntakePool) -> None:
    pool.take_in(*FILES[0])
    process: subprocess.Popen[bytes] = pool._all[0]
    with open(f"/proc/{process.pid}/environ", "rb") as environment:  # noqa: PTH123
        assert environment.read() == b"OPENBLAS_NUM_THREADS=1\0"
    with open(f"/proc/{process.pid}/status") as status:  # noqa: PTH123
        assert "Threads:\t1\n" in status
    with open(f"/proc/{process.pid}/limits") as limits:  # noqa: PTH123
        named = {line[:26].strip(): line[26:].split()[0] for line in limits}
    assert named["Max address space"] == str(4 * 2**30)
    assert named["Max file size"] == "0"
    assert int(named["Max cpu time"]) < 60


def test_a_stop_of_the_whole_group_costs_no_image(pool: IntakePool) -> None:
    pool.take_in(*FILES[0])
    for process in pool._all:
        process.send_signal(signal.SIGTERM)
    assert pool.take_in(*FILES[0]).width == 64


def test_a_stop_that_comes_while_a_process_starts_costs_no_image() -> None:
    """A worker may be stopped while an upload's first images are read, and on a busy machine a start takes a while."""
    with IntakePool(LIMITS, 1) as pool, ThreadPoolExecutor(1) as threads:
        taken = threads.submit(pool.take_in, *FILES[0])
        while not taken.done():
            for process in pool._all:
                process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert taken.result().width == 64
        assert len(pool._all) == 1


class OneProcess(IntakePool):
    """A pool on a machine that has no more processes to give than one."""

    def start(self) -> "subprocess.Popen[bytes]":
        if self._all:
            raise BlockingIOError("no more processes")
        return super().start()


def test_where_one_cannot_be_started_the_others_end() -> None:
    pool = OneProcess(LIMITS, 2)
    with pytest.raises(BlockingIOError), pool:
        pass
    assert [process.returncode for process in pool._all] == [-signal.SIGKILL]


def test_closing_ends_the_processes() -> None:
    with IntakePool(LIMITS, 2) as pool:
        assert len(pool._all) == 2  # before there is any image
        pool.take_in(*FILES[0])
        pool.take_in(*FILES[1])
    assert all(process.returncode is not None for process in pool._all)
