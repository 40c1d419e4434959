"""A file of tensors proves itself whole: no changed, missing or added byte goes unnoticed."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from app.vision.artefacts.model_file import load_model
from app.vision.artefacts.tensorfile import ENTRY, read_document, read_tensors, write_tensors
from app.vision.errors import DamagedArtefact, Stopped
from app.vision.training.checkpoint import KIND as CHECKPOINT
from tests.support.pictures import Recorder
from tests.support.runs import Fit

TENSORS = {"weight": torch.arange(300.0).reshape(3, 100), "steps": torch.tensor(7), "odd": torch.ones(5)}


@pytest.fixture
def checkpoint(run_fit: Fit, tmp_path: Path) -> Path:
    """Of a real run with a small head."""
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("a", Recorder(stop_after=2, keep=kept), epochs=2, batch_size=8)
    return kept


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, "kind", TENSORS, {"note": 'a "quoted" ü'})
    tensors, document = read_tensors(path, "kind")
    assert document == read_document(path, "kind") == {"note": 'a "quoted" ü'}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    first = path.read_bytes()
    write_tensors(path, "kind", TENSORS, {"note": 'a "quoted" ü'})
    assert path.read_bytes() == first
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_every_changed_byte_of_a_checkpoint_is_noticed(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    # The whole beginning with its length, digest and first fields; then all over the header and over the tensors.
    positions = {*range(300), *rng.integers(0, header, 400).tolist(), *range(header - 8, header + 8)}
    positions |= {*rng.integers(header, len(data), 500).tolist(), len(data) - 1}
    assert len(positions) >= 1000
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        checkpoint.write_bytes(damaged)
        with pytest.raises(DamagedArtefact):
            read_tensors(checkpoint, CHECKPOINT)
    checkpoint.write_bytes(data)
    read_tensors(checkpoint, CHECKPOINT)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:100],
        lambda data: data[:8],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data + data,
        lambda data: data[:-4096] + bytes(4096),  # the last page never reached the disk
    ],
)
def test_a_file_cut_short_or_grown_is_noticed(checkpoint: Path, change: Callable[[bytes], bytes]) -> None:
    checkpoint.write_bytes(change(checkpoint.read_bytes()))
    with pytest.raises(DamagedArtefact):
        read_tensors(checkpoint, CHECKPOINT)


def test_a_changed_byte_of_a_model_is_noticed_when_it_is_loaded(run_fit: Fit) -> None:
    path = run_fit("a", epochs=1).model_path
    data = path.read_bytes()
    load_model(path)
    for position in (9, 70, 5_000, len(data) // 2, len(data) - 1):
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([data[position] ^ 1]))
        with pytest.raises(DamagedArtefact):
            load_model(path)
        with path.open("r+b") as file:
            file.seek(position)
            file.write(data[position : position + 1])
    load_model(path)


def test_files_from_before_there_were_digests_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    entry: dict[str, Any] = {"format": "kind", "version": 1, "document": {"a": 1}}
    save_file(TENSORS, path, {ENTRY: json.dumps(entry)})
    tensors, document = read_tensors(path, "kind")
    assert document == {"a": 1}
    assert torch.equal(tensors["weight"], TENSORS["weight"])
    # One that ought to bear a digest and does not is not such a file.
    save_file(TENSORS, path, {ENTRY: json.dumps(entry | {"version": 2})})
    with pytest.raises(DamagedArtefact, match="format version 2"):
        read_tensors(path, "kind")


def test_checking_takes_no_more_memory_for_a_larger_file(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    write_tensors(path, "kind", {"a": torch.zeros(32 * 2**20 // 4)}, {})
    tracemalloc.start()
    read_document(path, "kind")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, "kind", TENSORS, {})
    with safe_open(path, framework="np") as file:
        np.testing.assert_array_equal(file.get_tensor("weight"), TENSORS["weight"].numpy())
