"""Batches that fit: chosen, named when one did not, and computed in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.vision.errors import OutOfMemory, Stopped
from app.vision.runtime import memory
from app.vision.tasks.classify.task import Classify
from app.vision.tasks.task import Batch
from tests.support.pictures import Recorder
from tests.support.runs import Fit

CPU = torch.device("cpu")
HEAD: dict[str, Any] = {"epochs": 2, "batch_size": 24, "optimizer": "sgd", "precision": "float32", "mixup": 0.3}


def no_more_than(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let larger passes fail as torch does when an allocation fails."""
    real: Callable[..., Any] = Classify.loss

    def scarce(task: Classify, run: Any, batch: Batch) -> Any:
        if len(batch.rows if batch.how is None else batch.how.partner) > rows_at_once:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return real(task, run, batch)

    monkeypatch.setattr(Classify, "loss", scarce)


def test_a_batch_that_does_not_fit_is_an_error_that_names_one_that_does(
    run_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_more_than(9, monkeypatch)
    with pytest.raises(OutOfMemory, match="batch of 24 images does not fit into memory: 8 would; lower") as caught:
        run_fit(**HEAD)
    assert (caught.value.batch_size, caught.value.fits) == (24, 8)


def test_parts_of_a_batch_add_up_to_the_same(run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_fit("whole", **HEAD)
    assert list(whole.notes) == []
    no_more_than(9, monkeypatch)
    fields = HEAD | {"on_out_of_memory": "shrink"}
    shrunk = run_fit("shrunk", **fields)
    assert list(shrunk.notes) == ["out of memory: batches of 24 are computed in 4 parts from here on."]
    ours, theirs = load_file(whole.model_path), load_file(shrunk.model_path)
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-5)
    # A resumed run keeps the parts, and what was said of them.
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("stopped", Recorder(stop_after=1, keep=kept), **fields)
    resumed = run_fit("resumed", resume=kept, **fields)
    assert resumed.model_path.read_bytes() == shrunk.model_path.read_bytes()
    assert resumed.notes == shrunk.notes


def test_where_no_part_is_small_enough_the_run_fails(run_fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    no_more_than(0, monkeypatch)
    with pytest.raises(OutOfMemory) as caught:
        run_fit(**HEAD | {"on_out_of_memory": "shrink"})
    assert caught.value.fits == 1


def test_an_automatic_batch_is_chosen_once(run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = HEAD | {"batch_size": "auto"}
    with monkeypatch.context() as patch:
        no_more_than(9, patch)
        chosen = run_fit("chosen", **fields)
        assert chosen.config.batch_size == 8
        kept = tmp_path / "kept.safetensors"
        with pytest.raises(Stopped):
            run_fit("stopped", Recorder(stop_after=4, keep=kept), **fields)
    # There is more memory now; the run goes on as it began.
    resumed = run_fit("resumed", resume=kept, **fields)
    assert resumed.model_path.read_bytes() == chosen.model_path.read_bytes()
    assert run_fit("more", **fields).config.batch_size == 16


def test_the_choice_leaves_the_network_as_it_was(run_fit: Fit) -> None:
    fields = HEAD | {"train": "last_stages", "unfreeze_every": 1, "mixup": 0.0}
    chosen = run_fit("auto", **fields | {"batch_size": "auto"})
    given = run_fit("given", **fields | {"batch_size": chosen.config.batch_size})
    assert chosen.model_path.read_bytes() == given.model_path.read_bytes()


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (RuntimeError("could not create a primitive"), True),  # what a convolution says under RLIMIT_DATA
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_the_ways_in_which_memory_runs_out(error: Exception, is_one: bool) -> None:
    assert memory.is_exhaustion(error) is is_one


def test_what_is_free_heeds_the_limits_of_a_control_group(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "cgroup" / "a" / "b"
    own.mkdir(parents=True)
    process = tmp_path / "self"
    process.mkdir()
    (process / "cgroup").write_text("0::/a/b\n")
    gauge = memory.Gauge(process, root)
    for folder, most, used, cached in ((own, "max", 5, 0), (root / "a", "1000", 700, 100)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert gauge.available(CPU) == 400
    (process / "cgroup").write_text("4:memory:/c\n")
    old = root / "memory" / "c"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("900")
    (old / "memory.usage_in_bytes").write_text("600")
    (old / "memory.stat").write_text("total_inactive_file 50")
    assert gauge.available(CPU) == 350


class Known(memory.Gauge):
    """A machine with 1000 bytes, on which a sample takes 10."""

    def available(self, device: torch.device) -> int:
        return 1000

    def used(self, device: torch.device) -> int:
        return 5

    def peak(self, attempt: Callable[[int], None], size: int, device: torch.device) -> int:
        return 105 + 10 * size


def test_the_largest_batch_follows_from_what_two_small_ones_take() -> None:
    tried: list[int] = []
    assert memory.largest_batch(tried.append, CPU, 256, gauge=Known()) == 64  # (800 - 100) / 10 = 70
    assert tried == [2, 64]
    assert memory.largest_batch(tried.append, CPU, 256, later=400, gauge=Known()) == 16  # (800 - 100 - 400) / 10 = 30
    assert memory.largest_batch(tried.append, CPU, 48, gauge=Known()) == 32

    def wrong(size: int) -> None:
        if size > 20:
            raise MemoryError

    assert memory.largest_batch(wrong, CPU, 256, gauge=Known()) == 16
    with pytest.raises(ValueError, match="no memory matter"):
        memory.largest_batch(lambda size: (_ for _ in ()).throw(ValueError("no memory matter")), CPU, 8, gauge=Known())
