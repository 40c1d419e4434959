"""A checkpoint in the blob store that is flipped, cut short or gone: training goes on from the one before."""

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.datasets import service as datasets
from app.storage import Blob, BlobDamaged
from app.storage.configured import configured_store
from app.vision.training import loop
from tests.support.stages import Stage
from worker.child.parent import Parent, StopRequested
from worker.kinds.train import train
from worker.processes.messages import Message, Work, decode

POSITIONS = 1024  # bytes that are flipped, one at a time
STEPS = 6  # of the run: two an epoch


class Told(Parent):
    """A parent that keeps what it is told, and asks to stop at the `last` checkpoint."""

    def __init__(self, last: int | None = None) -> None:
        self._lines = io.BytesIO()
        super().__init__(self._lines)
        self._last = last

    def checkpoint(self, blob: Blob, epoch: int, step: int, best: bool) -> None:
        super().checkpoint(blob, epoch, step, best)
        if len(self.checkpoints) == self._last:
            self.request_stop()

    @property
    def checkpoints(self) -> list[Message]:
        messages: list[Message] = [decode(line) for line in self._lines.getvalue().splitlines()]
        return [message for message in messages if message["kind"] == "checkpoint"]

    @property
    def steps(self) -> list[int]:
        """The step of the run, from 1, that each checkpoint was written after."""
        return [(one["body"]["epoch"] - 1) * 2 + one["body"]["step"] for one in self.checkpoints]

    @property
    def newest_first(self) -> list[str]:
        return [one["body"]["sha256"] for one in reversed(self.checkpoints)]


class Bench:
    """One training job's work, and the store that its child would use."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        workspace = stage.workspace()
        stage.dataset(workspace, "pets")
        stage.job(workspace, "pets", epochs=3, augmentation="light", head={"hidden": [4]})
        job = stage.claim("train")
        assert job is not None
        self._spec = job.spec
        with stage.database.reading() as session:
            assert job.dataset_version_id is not None
            self._manifest = datasets.get_version(session, job.dataset_version_id).manifest_sha256
        self.undisturbed = self.train([], Told())

    def train(self, checkpoints: list[str], parent: Parent) -> str:
        """The SHA-256 of the model."""
        artefact: str = self.made(checkpoints, parent)["artefact"]["sha256"]
        return artefact

    def made(self, checkpoints: list[str], parent: Parent, **asked: Any) -> dict[str, Any]:
        """What the child hands over; `asked` is added to the spec."""
        scratch = self._folder / f"scratch-{len(list(self._folder.iterdir()))}"
        scratch.mkdir()
        spec = self._spec | asked
        work = Work(spec=spec, manifest_sha256=self._manifest, checkpoints=checkpoints, scratch=str(scratch))
        return train(work, parent, self._stage.settings)

    def stopped(self) -> Told:
        """A run that was stopped with checkpoints after its first five steps."""
        parent = Told(last=4)
        with pytest.raises(StopRequested):
            self.train([], parent)
        assert parent.steps == [1, 2, 3, 4, 5]
        return parent

    def path(self, sha256: str) -> Path:
        return configured_store(self._stage.settings).fetch(sha256, self._folder)


@pytest.fixture
def bench(settings: Settings, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(loop, "LONGEST_S", 0.0)  # a checkpoint after every step
    database = Database(sqlite_url)
    folder = tmp_path / "bench"
    folder.mkdir()
    yield Bench(Stage(settings, database, configured_store(settings)), folder)
    database.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_training_goes_on_from_the_newest_that_is_whole(bench: Bench) -> None:
    whole = Told()
    assert bench.train(bench.stopped().newest_first, whole) == bench.undisturbed
    assert whole.steps[0] == STEPS


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_one_is_passed_over(bench: Bench, damage: Callable[[Path], None]) -> None:
    before = bench.stopped()
    newest, second, *_ = before.newest_first
    damage(bench.path(newest))
    after = Told()
    assert bench.train([newest, second], after) == bench.undisturbed
    assert after.steps[0] == before.steps[-2] + 1

    damage(bench.path(second))
    from_the_start = Told()
    assert bench.train([newest, second], from_the_start) == bench.undisturbed
    assert from_the_start.steps[0] == 1


def test_every_flipped_byte_is_noticed(bench: Bench, settings: Settings, tmp_path: Path) -> None:
    """Header, tensors and all: each of the first and last bytes, and others by chance."""
    sha256 = bench.stopped().newest_first[0]
    path, store = bench.path(sha256), configured_store(settings)
    whole = path.read_bytes()
    ends = [*range(64), *range(len(whole) - 64, len(whole))]
    positions = {*ends, *random.Random(0).sample(range(64, len(whole) - 64), POSITIONS - len(ends))}
    assert len(positions) == POSITIONS
    with path.open("r+b") as file:
        for position in positions:
            for value in (whole[position] ^ 1 << position % 8, whole[position]):
                file.seek(position)
                file.write(bytes([value]))
                file.flush()
                if value != whole[position]:
                    with pytest.raises(BlobDamaged):
                        store.fetch(sha256, tmp_path)
    assert store.fetch(sha256, tmp_path).read_bytes() == whole


def test_a_field_that_newer_code_asked_for_is_left_out_and_said(bench: Bench) -> None:
    made = bench.made([], Told(), teacher="big")
    assert made["artefact"]["sha256"] == bench.undisturbed
    (note,) = made["notes"]
    assert "teacher 'big'" in note
    assert "older than the service" in note
