"""Every benchmark of training runs, tiny, to its line: what it compares is measured elsewhere, and no time decides."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.support.pictures import CLASSES, draw

SIZE = ["--rounds", "1", "--size", "32"]
BENCHMARKS = {
    "frozen_trunk": ["--tutorial-epochs", "1", "--workers", "0"],
    "full_finetune": ["--epochs", "1", "--workers", "0"],
    "epoch_loop": ["--batch", "8"],
    "second_job": ["--epochs", "2", "--views", "2"],
    "pack_memory": ["--images", "8", "--epochs", "1"],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 8), ("val", 4)):
        for label in (0, 2):
            folder = root / split / CLASSES[label]
            folder.mkdir(parents=True)
            for number in range(count):
                draw(label, number + 100 * (split == "val")).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_runs_to_its_line(
    name: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [] if name == "pack_memory" else ["--data", str(pictures)]
    monkeypatch.setattr(sys, "argv", [name, *SIZE, *data, *BENCHMARKS[name]])
    refused = None
    try:
        importlib.import_module(f"bench.{name}").main()
    except SystemExit as ended:
        refused = ended.code
    line = json.loads(capsys.readouterr().out)
    assert line["bench"] == name
    assert line["ratio"] > 0
    # So few steps may leave one side behind; then, and only then, the benchmark must say that it compared nothing.
    equal = line.get("accuracy_equal", line.get("same_model", True))
    assert equal is (refused is None), refused
    if name == "second_job":
        assert line["same_model"]
