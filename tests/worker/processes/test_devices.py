"""What a machine says of its devices."""

from pathlib import Path

import pytest

from worker.processes.devices import devices


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
