"""A compiled trunk trains what a plain one does; without a compiler the run is as ever and says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from app.vision.errors import Stopped
from tests.support.commands import ENVIRONMENT, QUICK, REPOSITORY, command
from tests.support.pictures import Recorder
from tests.support.runs import Fit

FIELDS: dict[str, Any] = {
    "train": "last_stages",
    "epochs": 2,
    "batch_size": 7,
    "optimizer": "sgd",
    "precision": "float32",
    "input_size": 64,
}


def test_without_a_compiler_it_trains_as_ever_and_says_so(folder: Path, tmp_path: Path) -> None:
    """In a process of its own: torch remembers which compilers there are."""
    environment = ENVIRONMENT | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    options = ("--train", "1", "--epochs", "1", "--compile", "--out", tmp_path / "out")
    done = subprocess.run(
        command("train", folder, *QUICK, *options),
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "note: compile: not done, for it failed with " in done.stdout
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("default")
def test_a_compiled_run_comes_near_a_plain_one_and_resumes_to_the_bit(run_fit: Fit, tmp_path: Path) -> None:
    """24 images in batches of 7 are of six: 4 batches; and of 5 and 4 where they are cut otherwise."""
    torch._dynamo.reset()
    plain, compiled = run_fit("plain", **FIELDS), run_fit("compiled", compile=True, **FIELDS)
    assert list(compiled.notes) == []
    losses = [[metrics["train_loss"] for metrics in run.history] for run in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1]  # it was another program that computed them
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("stopped", Recorder(stop_after=3, keep=kept), compile=True, **FIELDS)
    torch._dynamo.reset()
    resumed = run_fit("resumed", resume=kept, compile=True, **FIELDS)
    assert resumed.model_path.read_bytes() == compiled.model_path.read_bytes()
