"""`make gpu` keeps within its time whatever its steps do, reports each of them, and gives each known options."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import bench.gpu_profile
from bench.checkouts import HERE
from bench.gpu import FIGURES, TESTS, Report, Step, main, run_all, run_step
from tests.support.pictures import CLASSES, draw

ABOUT = {"GPU": "one", "torch": "2"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert main([]) == 0
    assert capsys.readouterr().out == "There is no GPU here: nothing run.\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", FIGURES, ids=lambda step: step.name)
def test_the_figures_have_options_that_their_benchmarks_know(step: Step) -> None:
    module = importlib.import_module(step.module)
    assert module.options_parser().parse_args([*step.options, "--data", "photos.zip"]).data == Path("photos.zip")
    assert step.profiled[0] in bench.gpu_profile.NAMES
    assert f"python -m {step.module}" in (HERE / "docs" / "benchmarks.md").read_text()


def test_the_tests_are_where_the_step_says() -> None:
    source = (HERE / TESTS.options[-1]).read_text()
    assert "def test_a_batch_that_the_gpu_cannot_hold_is_named_with_one_that_it_can(" in source
    assert "def test_a_compiled_run_is_as_good_as_a_plain_one(" in source


def test_each_step_is_reported_and_each_miss_profiled(tmp_path: Path) -> None:
    asked = []

    def run(step: Step, options: Sequence[str], limit: float) -> tuple[int | None, str, str]:
        asked.append((step.module, *options))
        if step.module == "pytest":
            return 0, "", "8 passed in 40 s"
        if step.module == "bench.gpu_profile":
            kernels = [{"name": "gemm", "ms": 1.5, "calls": 3}]
            return 0, json.dumps({"bench": "gpu_profile", "busy": 0.25, "seconds": 2.0, "kernels": kernels}), ""
        if step.name == "epoch_loop":
            return None, "", "round 1"
        line = {"bench": step.name, "ratio": 1.5, "ratio_of_rounds": [1.4, 1.6], "target": 2.5}
        return 0, "noise\n" + json.dumps(line | {"met": step.name == "serve_gpu"}), ""

    report = Report(tmp_path, ABOUT)
    run_all(report, ["--data", "x"], 480.0, run)
    states = {one.step: one.state for one in report.outcomes}
    assert states["tests"] == "passed"
    assert states["serve_gpu"] == "met"
    assert states["epoch_loop"] == "out of time"
    missed = [name for name, state in states.items() if state == "missed"]
    assert missed == ["full_finetune", "frozen_trunk", "frozen_trunk, two views", "epoch_loop, batches of 128"]
    assert [name for name in states if name.startswith("profile")] == [f"profile of {name}" for name in missed]
    assert ("bench.gpu_profile", "frozen_trunk", "--workers", "4", "--views", "2", "--data", "x") in asked
    table = (tmp_path / "gpu.md").read_text()
    assert table.startswith("GPU one, torch 2\n")
    assert "| full_finetune | missed | 1.5 (1.4 to 1.6) | 2.5 |" in table
    assert "the GPU computes 25% of 2.0 s. gemm 1.5 ms in 3" in table
    assert [one["state"] for one in json.loads((tmp_path / "gpu.json").read_text())["steps"]] == list(states.values())


def test_what_there_is_no_time_for_is_said(tmp_path: Path) -> None:
    report = Report(tmp_path, ABOUT)
    run_all(report, [], 5.0, lambda *_: pytest.fail("nothing is started that could not end in time"))
    assert {one.state for one in report.outcomes} == {"skipped"}
    assert "| serve_gpu | skipped | no time was left |" in (tmp_path / "gpu.md").read_text()


def test_a_step_that_hangs_ends_at_its_limit() -> None:
    began = time.monotonic()
    # The standard library's own server waits for callers until it is interrupted.
    hangs = Step("hangs", "http.server", ("0", "--bind", "127.0.0.1"), 2.0, data=False)
    code, _, said = run_step(hangs, hangs.options, 2.0)
    assert code is None
    assert "Serving HTTP" in said
    assert time.monotonic() - began < 60


def test_a_training_is_profiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 8), ("val", 4)):
        for label in (0, 2):
            folder = tmp_path / split / CLASSES[label]
            folder.mkdir(parents=True)
            for number in range(count):
                draw(label, number + 100 * (split == "val")).save(folder / f"{number}.png")
    bench.gpu_profile.main(["full_finetune", "--epochs", "1", "--size", "32", "--data", str(tmp_path)])
    line = json.loads(capsys.readouterr().out)
    assert (line["bench"], line["of"]) == ("gpu_profile", "full_finetune")
    assert line["seconds"] > 0
    assert any("conv" in one["name"] for one in line["operations"])


def test_a_profile_of_something_else_is_refused() -> None:
    with pytest.raises(SystemExit, match="ingestion: there is no profile of this; use frozen_trunk, full_finetune"):
        bench.gpu_profile.main(["ingestion"])
