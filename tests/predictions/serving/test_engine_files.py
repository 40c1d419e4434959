"""Files of engines are made once, made again when they are not what was written, and kept within a budget."""

import os
from pathlib import Path

import pytest

from app.predictions.serving.engine_files import EngineFiles


class Maker:
    def __init__(self, content: bytes = b"x" * 100) -> None:
        self.content = content
        self.made = 0

    def __call__(self, path: Path) -> None:
        self.made += 1
        path.write_bytes(self.content)


def test_a_file_is_made_once(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(3):
        path = EngineFiles(tmp_path, 1000).get("a", "int8.onnx", make)
        assert path.read_bytes() == make.content
    assert make.made == 1


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    make = Maker()
    files = EngineFiles(tmp_path, 1000)
    path = files.get("a", "int8.onnx", make)
    path.write_bytes(b"y" + make.content[1:])
    assert files.get("a", "int8.onnx", make).read_bytes() == make.content
    assert make.made == 2


def test_a_file_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        EngineFiles(tmp_path, 1000).get("a", "int8.onnx", half)
    assert list((tmp_path / "a").iterdir()) == []


def test_the_least_recently_used_models_go_when_the_budget_is_spent(tmp_path: Path) -> None:
    files = EngineFiles(tmp_path, 400)  # each takes 164: a file and its hash
    for age, model in ((30, "a"), (20, "b")):
        files.get(model, "int8.onnx", Maker())
        os.utime(tmp_path / model, (os.path.getmtime(tmp_path) - age,) * 2)  # noqa: PTH204
    files.get("a", "int8.onnx", Maker())  # used again
    files.get("c", "int8.onnx", Maker())
    assert {folder.name for folder in tmp_path.iterdir()} == {"a", "c"}
    EngineFiles(tmp_path, 1).get("d", "int8.onnx", Maker())
    assert {folder.name for folder in tmp_path.iterdir()} == {"d"}  # the one that is wanted stays, however large
