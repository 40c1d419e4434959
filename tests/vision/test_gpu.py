"""What only a GPU shows: the same weights every time, whatever the kernels; and memory that really runs out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.vision.data.samples import Sample
from app.vision.errors import OutOfMemory, Stopped
from app.vision.runtime.cuda_graphs import GraphedTrunk
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from app.vision.training.result import FitResult
from tests.support.pictures import CLASSES, Recorder, make_samples
from tests.support.runs import WEIGHTS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

RUN: dict[str, Any] = {"train": "all", "epochs": 2, "batch_size": 16, "input_size": 128, "augmentation": "strong"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return make_samples(tmp_path_factory.mktemp("pictures"), train=32)


@pytest.fixture(autouse=True)
def _workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a worker's child has it."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def run(
    pictures: list[Sample], folder: Path, observer: Recorder | None = None, resume: Path | None = None, **fields: Any
) -> FitResult:
    config = TrainConfig("resnet18-tiny64", **(RUN | fields))
    return fit(
        config, pictures, CLASSES, weights=WEIGHTS, workdir=folder, observer=observer or Recorder(), resume=resume
    )


def same(first: FitResult, *others: FitResult) -> None:
    """To the bit, whatever their files say of how they were made."""
    expected = load_file(first.model_path)
    for other in others:
        for name, tensor in load_file(other.model_path).items():
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_same_seed_gives_the_same_weights(pictures: list[Sample], tmp_path: Path, precision: str) -> None:
    same(*(run(pictures, tmp_path / str(count), precision=precision, loader_workers=count) for count in (0, 1, 2)))


def test_a_stopped_run_goes_on_to_the_same_weights(pictures: list[Sample], tmp_path: Path) -> None:
    unbroken = run(pictures, tmp_path / "unbroken", precision="float16")
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run(pictures, tmp_path / "stopped", Recorder(stop_after=8, keep=kept), precision="float16")
    resumed = run(pictures, tmp_path / "resumed", resume=kept, precision="float16")
    assert resumed.model_path.read_bytes() == unbroken.model_path.read_bytes()


def test_images_on_the_disk_and_in_the_gpus_memory_give_the_same(
    pictures: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = run(pictures, tmp_path / "resident")
    monkeypatch.setattr(resident, "SHARE", 0.0)
    same(resident, run(pictures, tmp_path / "read", loader_workers=2))


@pytest.mark.parametrize("fields", [{"precision": "bfloat16"}, {"train": "last_stages", "unfreeze_every": 1}])
def test_what_is_recorded_for_the_gpu_computes_the_same(
    pictures: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    fields = {"batch_size": 15, "epochs": 4} | fields  # batches of two sizes, recorded once it is known what they take
    recorded: list[int] = []
    original = GraphedTrunk.recorded

    def note(trunk: GraphedTrunk, count: int, side: int) -> Any:
        recorded.append(count)
        return original(trunk, count, side)

    monkeypatch.setattr(GraphedTrunk, "recorded", note)
    graphed = run(pictures, tmp_path / "graphed", **fields)
    assert len(set(recorded)) == 2
    monkeypatch.setattr(GraphedTrunk, "record", lambda *_: None)
    same(graphed, run(pictures, tmp_path / "plain", **fields))


def _need_a_compiler() -> None:
    """Skip where nothing can be compiled for this GPU: no Triton, no C compiler, or no headers of Python."""
    weight = torch.ones(8, 8, device="cuda", requires_grad=True)
    try:
        torch.compile(lambda x: (x @ weight).relu().sum())(torch.ones(4, 8, device="cuda")).backward()
    except Exception as error:
        pytest.skip(f"nothing can be compiled here: {type(error).__name__}: {error}"[:300])


def test_a_compiled_run_is_as_good_as_a_plain_one(pictures: list[Sample], tmp_path: Path) -> None:
    """Where the compiled network fails on its way back, as torch 2.11's at 32 pixels, the run says so and goes on."""
    torch._dynamo.reset()
    _need_a_compiler()
    plain, compiled = (
        run(pictures, tmp_path / str(compiles), compile=compiles, epochs=1) for compiles in (False, True)
    )
    assert list(compiled.notes) == []
    assert compiled.history[0]["train_loss"] == pytest.approx(plain.history[0]["train_loss"], rel=0.05)
    small = run(pictures, tmp_path / "small", compile=True, epochs=1, input_size=32)
    assert all(note.startswith("compile: not done") for note in small.notes)


def test_a_batch_that_the_gpu_cannot_hold_is_named_with_one_that_it_can(pictures: list[Sample], tmp_path: Path) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1.2e9) / total)
    fields: dict[str, Any] = {"input_size": 224, "batch_size": 96, "precision": "float32", "augmentation": "none"}
    with pytest.raises(OutOfMemory) as caught:
        run(pictures, tmp_path / "large", **fields)
    assert caught.value.batch_size == 96
    assert caught.value.fits is not None
    assert 2 <= caught.value.fits <= 48
    fitting = run(pictures, tmp_path / "fits", **fields | {"batch_size": caught.value.fits, "epochs": 1})
    assert fitting.history[0]["epoch"] == 1
    shrunk = run(pictures, tmp_path / "shrunk", **fields | {"on_out_of_memory": "shrink", "epochs": 1})
    assert "out of memory: batches of 96 are computed in" in shrunk.notes[0]
