"""The command on several machines: two launchers of torchrun that share no disk train what one process trains."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.commands import ENVIRONMENT, QUICK, REPOSITORY, command, run
from tests.support.runs import TOLERANCE
from tests.support.servers import free_port

pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes do not share one GPU")

OPTIONS = (*QUICK, "--train", "1", "--epochs", "2", "--batch-size", "8", "--optimizer", "sgd", "--precision", "float32")


def machine(number: int, port: int, folder: Path) -> subprocess.Popen[str]:
    """The launcher of one of two machines, with images, and a place for the results, of its own."""
    meeting = ["--nnodes", "2", "--node-rank", str(number), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", *meeting]
    return subprocess.Popen(
        [*launcher, *command("train", folder / "images", *OPTIONS, "--out", folder / "out")[1:]],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_machines_come_to_what_one_process_comes_to(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for one in (first, second):
        shutil.copytree(folder, one / "images")
    port = free_port()
    launched = [machine(number, port, one) for number, one in enumerate((first, second))]
    try:
        said = [process.communicate(timeout=600) for process in launched]
    finally:
        for process in launched:
            process.kill()
            process.wait()
    assert [process.returncode for process in launched] == [0, 0], said
    assert [sum(line.startswith("epoch ") for line in out.splitlines()) for out, _ in said] == [2, 0]
    assert list((second / "out").iterdir()) == []  # the first machine writes the model, and all else
    run("train", folder, *OPTIONS, "--out", tmp_path / "alone")
    shared, alone = (load_file(out / "model.safetensors") for out in (first / "out", tmp_path / "alone"))
    assert shared.keys() == alone.keys()
    for key, tensor in alone.items():
        torch.testing.assert_close(shared[key], tensor, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, key=key: key + m)
