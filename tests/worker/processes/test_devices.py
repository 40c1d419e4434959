"""What a machine says of its devices."""

from pathlib import Path

import pytest

from worker.processes.devices import devices, visible_device


def installed(folder: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an `nvidia-smi` in the way that answers so."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{answer}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_each_gpu_with_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "printf 'NVIDIA H100, 81559, 80000\\nNVIDIA A30 MIG, [N/A], [N/A]\\n'", monkeypatch)
    assert devices() == [
        {"name": "NVIDIA H100", "memory_total": 81559 * 2**20, "memory_free": 80000 * 2**20},
        {"name": "NVIDIA A30 MIG", "memory_total": None, "memory_free": None},
    ]


@pytest.mark.parametrize("answer", ["echo 'NVIDIA-SMI has failed'; exit 9", "echo 'No devices were found'"])
def test_without_a_gpu_the_processor_with_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    installed(tmp_path, answer, monkeypatch)
    (found,) = devices()
    assert found["name"]
    assert 0 < found["memory_free"] < found["memory_total"]


def test_a_machine_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = devices(proc=tmp_path)
    assert found["name"]
    assert (found["memory_total"], found["memory_free"]) == (None, None)


@pytest.mark.parametrize(
    ("number", "visible", "expected"),
    [
        (0, None, "0"),
        (1, None, "1"),
        (0, "2,3", "2"),
        (1, "2, 3", "3"),
        (1, "GPU-8932f937,MIG-GPU-5c1e", "MIG-GPU-5c1e"),
        (2, "2,3", ""),
        (0, "", ""),
    ],
)
def test_a_slot_has_one_of_the_gpus_that_the_worker_was_given(number: int, visible: str | None, expected: str) -> None:
    assert visible_device(number, visible) == expected
