"""Two processes with gloo train what one trains; they stop, fail and go on together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.vision.data.samples import Sample
from app.vision.errors import InvalidConfig, OutOfMemory, WeightsUnavailable
from app.vision.images.mixing import Mix, mix, part_of
from app.vision.networks.batch_norm import SharedBatchNorm
from app.vision.runtime.ranks import _error, _portrait
from app.vision.settings.config import TrainConfig
from tests.support.commands import ENVIRONMENT, QUICK, REPOSITORY, command, run
from tests.support.runs import TOLERANCE, Fit
from tests.support.servers import free_port
from tests.support.two_ranks import PLAIN, RUNS, STAGES, STOP_AFTER

pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes do not share one GPU")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> Path:
    """The folder in which two processes have left what they did; see `tests.support.two_ranks`."""
    out = tmp_path_factory.mktemp("ranks")
    listed = out / "samples.json"
    listed.write_text(json.dumps([[str(sample.path), sample.label, sample.split] for sample in samples]))
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.two_ranks", listed, out],
            cwd=REPOSITORY,
            env=ENVIRONMENT | meeting | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL], "".join(said)[-4000:]
    return out


def ended(together: Path, rank: int) -> dict[str, str]:
    found: dict[str, str] = json.loads((together / f"ended-{rank}.json").read_text())
    return found


def report(together: Path, name: str, rank: int = 0) -> Any:
    return json.loads((together / f"{name}-{rank}.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_come_to_what_one_comes_to(run_fit: Fit, together: Path, name: str) -> None:
    alone = run_fit("alone", **RUNS[name])
    weights, shared = load_file(alone.model_path), load_file(together / name / "model.safetensors")
    assert weights.keys() == shared.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(shared[key], tensor, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, key=key: key + m)
    history = report(together, name)["history"]
    for here, there in zip(alone.history, history, strict=True):
        assert there["train_loss"] == pytest.approx(here["train_loss"], rel=TOLERANCE)
        assert there["train_accuracy"] == here["train_accuracy"]
        assert there["val_loss"] == pytest.approx(here["val_loss"], rel=1e-2)


def test_the_same_run_again_and_a_resumed_one_give_the_same_file(together: Path) -> None:
    expected = (together / "stages" / "model.safetensors").read_bytes()
    assert (together / "again" / "model.safetensors").read_bytes() == expected
    assert (together / "resumed" / "model.safetensors").read_bytes() == expected


def test_one_rank_reports_and_all_stop_together(together: Path) -> None:
    assert [ended(together, rank)["stopped"] for rank in (0, 1)] == ["stopped", "stopped"]
    assert (together / "kept.safetensors").exists()
    first, second = (report(together, "stages", rank) for rank in (0, 1))
    assert len(first["epochs"]) == 2
    assert (second["epochs"], second["reports"]) == ([], 0)


def test_a_checkpoint_of_two_processes_serves_one(run_fit: Fit, together: Path) -> None:
    resumed = run_fit("resumed", resume=together / "kept.safetensors", **STAGES)
    shared = load_file(together / "stages" / "model.safetensors")
    for key, tensor in load_file(resumed.model_path).items():
        torch.testing.assert_close(shared[key], tensor, rtol=TOLERANCE, atol=TOLERANCE)
    assert STOP_AFTER < 6  # there was something left to do


def test_what_ends_one_rank_ends_both_with_the_same_error(together: Path) -> None:
    first, second = (ended(together, rank)["memory"] for rank in (0, 1))
    assert first == second
    assert first.startswith("OutOfMemory: A batch of 4 images does not fit")


def test_a_killed_rank_is_missed_at_once(together: Path) -> None:
    assert ended(together, 0)["kill"].startswith("RankLost: Process 0 of the run has lost another one")


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemory(48),
        InvalidConfig("precision", "no."),
        WeightsUnavailable("resnet18", "file.pth", "https://host", [Path("a")], "gone"),
    ],
)
def test_an_error_arrives_as_it_was_sent(error: Exception) -> None:
    arrived = _error(**json.loads(json.dumps(_portrait(error), default=str)))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived).keys() == vars(error).keys()


def test_a_foreign_error_arrives_by_name() -> None:
    assert "ZeroDivisionError: division by zero" in str(_error(**_portrait(ZeroDivisionError("division by zero"))))


def test_a_shared_batch_norm_alone_is_a_plain_one() -> None:
    torch.manual_seed(0)
    plain = torch.nn.BatchNorm2d(4)
    torch.nn.init.uniform_(plain.weight)
    shared = SharedBatchNorm.of(torch.nn.BatchNorm2d(4))
    shared.load_state_dict(plain.state_dict())
    batch = torch.randn(6, 4, 3, 3) * 3 + 5
    outputs, gradients = [], []
    for layer in (plain, shared):
        images = batch.clone().requires_grad_()
        out = layer(images)
        (out**3).sum().backward()
        outputs.append(out.detach())
        assert images.grad is not None
        gradients.append(images.grad)
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shared.state_dict(), plain.state_dict())
    torch.testing.assert_close(shared.eval()(batch), plain.eval()(batch))


def test_a_part_of_a_batch_is_mixed_as_in_the_whole() -> None:
    rows, values = np.array([4, 2, 7, 0, 5]), torch.arange(10.0)[:, None]
    how = Mix(np.array([3, 4, 0, 1, 2]), 0.25)
    whole = mix(values[rows], how)
    for start, stop in ((0, 2), (2, 5), (0, 5)):
        shown, part = part_of(rows, how, start, stop)
        assert part is not None
        torch.testing.assert_close(mix(values[shown], part), whole[start:stop])


def test_a_batch_that_cannot_be_shared_is_refused(run_fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.vision.runtime import ranks
    from app.vision.tasks.preparation import check_shares

    monkeypatch.setattr(ranks, "count", lambda: 16)
    with pytest.raises(InvalidConfig, match="8: a batch of 8 images cannot be shared by 16 processes"):
        check_shares(TrainConfig("resnet18", batch_size=8).resolve(), 24)


def test_torchrun_is_interrupted_once_for_all_and_one_process_goes_on(folder: Path, tmp_path: Path) -> None:
    """Several processes of a command: one line an epoch, one checkpoint, one error; then resumed by a single one."""
    options = ("train", folder, *QUICK, "--train", "1", "--epochs", "3", "--batch-size", "4", "--optimizer", "sgd")
    options += ("--precision", "float32")
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    process = subprocess.Popen(
        [*launcher, *command(*options, "--out", out)[1:]],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    reader.start()
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("epoch 1/3"):
            os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=240)
    reader.join()
    process.stdout.close()
    process.stderr.close()
    assert [line for line in errors if line.startswith("error: ")] == [
        f"error: interrupted; go on with --resume {out}.\n"
    ], "".join(errors)
    assert len([line for line in printed if line.startswith("epoch 1/3")]) == 1
    assert [path.name for path in out.iterdir()] == ["checkpoints"]
    run(*options, "--out", out, "--resume", out)
    assert (out / "model.safetensors").exists()
    assert PLAIN["optimizer"] == "sgd"
