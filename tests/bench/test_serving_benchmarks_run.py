"""Every benchmark of serving runs, tiny, to its line: what it compares is measured elsewhere, and no time decides."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bench.served
from bench.serve_latency import constant_service
from bench.served import Served
from tests.support.pictures import CLASSES, draw

# Compiling, exporting and quantising take a minute, and have tests of their own.
SMALL = ["--rounds", "1", "--size", "32", "--seconds", "0.5", "--epochs", "2", "--connections", "2"]
SMALL += ["--warm", "1", "--engines", "torch-bf16"]
# Beside these, all have the ratio, the target, whether it was met, and the machine.
BENCHMARKS: dict[str, tuple[list[str], set[str]]] = {
    "serve_http": ([], {"without_client", "images_per_second", "same_labels", "engine", "batch"}),
    "serve_latency": (["--open-connections", "8"], {"single_ms", "poisson", "same_labels", "engine"}),
    "serve_large_photos": (["--images", "8", "--width", "400"], {"images_per_second", "same_labels", "pixels"}),
    "serve_overload": (
        ["--overload-seconds", "2", "--open-connections", "16"],
        {"capacity", "throughput", "refused", "failed", "in_time", "memory"}
        | {"same_labels", "without_client", "client_cpu"},
    ),
    "serve_others": (["--here", "--others", "fastapi"], {"best", "same_engine", "images_per_second", "same_labels"}),
}


def test_chance_alone_makes_a_tail() -> None:
    assert constant_service(2, 0.01, 20_000) == 1.0
    assert constant_service(2, 0.3, 20_000) < constant_service(2, 0.7, 20_000) < constant_service(1, 0.7, 20_000)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("val", 12)):
        for label in (0, 2):
            folder = root / split / CLASSES[label]
            folder.mkdir(parents=True)
            for number in range(count):
                draw(label, number + 100 * (split == "val")).convert("RGB").save(folder / f"{number}.jpg", quality=95)
    return root


@pytest.fixture(scope="module")
def service(pictures: Path) -> Iterator[Served]:
    """One for all of them: each makes its own otherwise."""
    parser = bench.served.serving_arguments(importlib.import_module("bench.rounds").arguments(None))
    with bench.served.served(parser.parse_args([*SMALL, "--data", str(pictures)])) as found:
        yield found


def line_of(name: str, given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(sys, "argv", [name, *given])
    importlib.import_module(f"bench.{name}").main()
    line = json.loads(capsys.readouterr().out)
    assert line["bench"] == name
    assert line.keys() >= {"ratio", "ratio_of_rounds", "target", "met", "machine"}
    assert line["ratio"] > 0
    return line


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_runs_to_its_line(
    name: str, service: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def shared(_: Any) -> Iterator[Served]:
        yield service

    options, keys = BENCHMARKS[name]
    monkeypatch.setattr(importlib.import_module(f"bench.{name}"), "served", shared)
    line = line_of(name, [*SMALL, *options], monkeypatch, capsys)
    assert line.keys() >= keys
    # Answers are compared: a JPEG drawn for these tests leaves no room for two opinions, unless it is scaled otherwise.
    same = line["same_labels"]
    for share in same.values() if isinstance(same, dict) else [same]:
        assert share is None or share >= 0.9
    assert not line.get("failed") or not any(line["failed"].values())


def test_many_models_take_turns_in_a_small_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = line_of("serve_many_models", ["--models", "7", "--rounds", "1"], monkeypatch, capsys)
    assert (line["met"], line["failed"], line["calls"]) == (True, 0, 27)
    assert line["most_loaded"] <= 5
