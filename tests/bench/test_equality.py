"""The comparison of two trees finds a difference, and says where it lies; each configuration's options are known."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from app.vision.artefacts.tensorfile import write_tensors
from app.vision.command.train import main as vision
from bench.checkouts import HERE, Checkout, checkout_of, existing_checkout, this_checkout
from bench.equality import CONFIGURATIONS, difference, main


def model(path: Path, value: float = 1.0, **document: object) -> Path:
    write_tensors(path, "graftwork.model", {"weight": torch.full((2, 2), value), "bias": torch.zeros(2)}, document)
    return path


def test_equal_files_have_no_difference(tmp_path: Path) -> None:
    first = model(tmp_path / "first", classes=["ant", "bee"])
    assert difference(first, model(tmp_path / "second", classes=["ant", "bee"])) is None


def test_a_difference_is_said_by_where_it_lies(tmp_path: Path) -> None:
    first = model(tmp_path / "first", classes=["ant", "bee"])
    other = model(tmp_path / "other", 1.0000001, classes=["ant", "bee"])
    assert difference(first, other) == "1 of 2 tensors differ, first weight"
    more = model(tmp_path / "more", classes=["ant", "bee"], task="classify")
    assert difference(first, more) == "the tensors are equal, the document differs in task"


def test_only_a_named_key_may_be_added(tmp_path: Path) -> None:
    first = model(tmp_path / "first", classes=["ant", "bee"])
    more = model(tmp_path / "more", classes=["ant", "bee"], task="classify")
    assert difference(first, more, added=["task"]) is None
    assert difference(more, first, added=["task"]) == "the tensors are equal, the document differs in task"
    changed = model(tmp_path / "changed", classes=["ant"], task="classify")
    assert difference(first, changed, added=["task"]) == "the tensors are equal, the document differs in classes"


@pytest.mark.parametrize("one", CONFIGURATIONS, ids=lambda one: one.name)
def test_the_command_knows_every_option(one: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are understood up to the folder that is not there."""
    options = ["--input-size", str(one.size), "--backbone", one.backbone, *one.options]  # type: ignore[attr-defined]
    assert vision(["train", str(tmp_path / "missing"), *options]) == 1
    assert "missing is not a folder" in capsys.readouterr().err


def test_an_unknown_configuration_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--commit", "HEAD", "--only", "heads"])
    assert "--only heads: there is no such configuration; use head, stages" in capsys.readouterr().err


def test_a_tree_equals_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole comparison of one configuration; both sides are this tree, by way of a folder that links to it."""
    (tmp_path / "app").symlink_to(HERE / "app")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / ".git").symlink_to(HERE / ".git")
    assert main(["--before", str(tmp_path), "--only", "head"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("head ")
    assert printed[1].endswith("equal")
    assert printed[-1].endswith("all 1 are equal")


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--before .*: this is no checkout with an environment"):
        existing_checkout(tmp_path)


def test_an_unknown_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--commit 0000000: this repository has no such commit"):
        checkout_of("0000000", "run", tmp_path)


def test_a_checkout_is_run_with_nothing_of_this_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("GRAFT_HOME", "/somewhere")
    found = Checkout(tmp_path, tmp_path / "python").environment(OMP_NUM_THREADS="1")
    assert not {"PYTHONPATH", "GRAFT_HOME"} & found.keys()
    assert found["PATH"] == os.environ["PATH"]
    assert found["OMP_NUM_THREADS"] == "1"
    assert this_checkout().module("bench.dispatch", "--jobs", "1")[1:] == ["-m", "bench.dispatch", "--jobs", "1"]
