"""The command as a person runs it: real processes on small generated folders."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from app.vision.artefacts.model_file import read_model_document
from app.vision.command.options import add_config_options, config_values, option_name, options_of
from app.vision.command.train import main
from app.vision.settings.config import TrainConfig
from tests.support.commands import ENVIRONMENT, QUICK, command, make_folder, run
from tests.support.images import REPOSITORY
from tests.support.pictures import CLASSES
from tests.support.runs import WEIGHTS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Path, str]:
    """A finished run's folder, and what it printed."""
    out = tmp_path_factory.mktemp("trained") / "model"
    options = (*QUICK, "--epochs", "4", "--test-fraction", "0.2", "--head-hidden", "8", "--seed", "3")
    return out, run("train", folder, "--out", out, *options).stdout


def test_training_prints_a_line_an_epoch_and_the_scores_of_every_class(trained: tuple[Path, str]) -> None:
    printed = trained[1].splitlines()
    assert printed[0].startswith("18 train, 6 val, 6 test images of 3 classes")
    epochs = [line for line in printed if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/4", "2/4", "3/4", "4/4"]
    for split in ("val", "test"):
        start = next(row for row, line in enumerate(printed) if line.startswith(f"{split}: accuracy"))
        rows = [line.split() for line in printed[start + 2 : start + 5]]
        assert [row[0] for row in rows] == list(CLASSES)
        assert [row[-1] for row in rows] == ["2", "2", "2"]


def test_training_leaves_model_metrics_and_pictures_and_nothing_else(trained: tuple[Path, str]) -> None:
    out, _ = trained
    of_a_split = (
        "confusion-{}.png",
        "reliability-{}.png",
        "coverage-{}.png",
        "evaluations-{}.jsonl",
        "evaluations-{}.csv",
    )
    written = {name.format(split) for name in of_a_split for split in ("val", "test")}
    assert {path.name for path in out.iterdir()} == written | {"model.safetensors", "metrics.json", "curves.png"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["images"] == {"train": 18, "val": 6, "test": 6}
    assert metrics["config"]["head"]["hidden"] == [8]
    assert metrics["config"]["seed"] == 3
    assert [entry["epoch"] for entry in metrics["history"]] == [1, 2, 3, 4]
    assert metrics["metrics"]["test"]["per_class"][0]["support"] == 2
    assert read_model_document(out / "model.safetensors")["classes"] == list(CLASSES)


def test_predictions_agree_with_the_scores(trained: tuple[Path, str], folder: Path) -> None:
    out, _ = trained
    images = sorted(folder.glob("*/*.png"))
    answers = [json.loads(line) for line in run("predict", out, *images, "--json").stdout.splitlines()]
    assert [answer["image"] for answer in answers] == list(map(str, images))
    right = 0
    for image, answer in zip(images, answers, strict=True):
        shares = [entry["probability"] for entry in answer["predictions"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        right += answer["predictions"][0]["class"] == image.parent.name
    assert right >= 20
    (line,) = run("predict", out / "model.safetensors", images[0], "--top-k", "1").stdout.splitlines()
    best = answers[0]["predictions"][0]
    assert line == f"{images[0]}  {best['class']} {best['probability']:.4f}"


def test_an_unreadable_image_does_not_spoil_the_others(trained: tuple[Path, str], folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    good = folder / "disc" / "0.png"
    done = run("predict", trained[0], broken, good, code=1)
    assert done.stdout.startswith(f"{good}  ")
    assert done.stderr.startswith("error: broken.jpg: not a readable image")


def test_given_splits_stages_and_a_weights_file(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data", {"train": 4, "val": 2})
    out = tmp_path / "out"
    options = ("--backbone", "resnet18-tiny64", "--input-size", "32", "--train", "2", "--epochs", "1")
    printed = run("train", data, "--out", out, "--weights", WEIGHTS, *options).stdout
    assert printed.startswith("12 train, 6 val images of 3 classes; backbone resnet18-tiny64, training the last 2")
    config = read_model_document(out / "model.safetensors")["config"]
    assert (config["train"], config["last_stages"]) == ("last_stages", 2)


def test_an_interrupted_run_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    options = ("train", folder, *QUICK, "--train", "1", "--epochs", "3", "--batch-size", "4")
    run(*options, "--out", tmp_path / "whole")
    out = tmp_path / "parts"
    process = subprocess.Popen(
        command(*options, "--out", out),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/3"):
            process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert process.stderr is not None
    assert process.stderr.read() == f"error: interrupted; go on with --resume {out}.\n"
    process.stdout.close()
    process.stderr.close()
    assert [path.name for path in out.iterdir()] == ["checkpoints"]
    again = run(*options, "--out", out, code=1)
    assert f"{out} holds checkpoints of an unfinished run: go on with --resume {out}" in again.stderr
    # Beside it an older one, and a newer one that lost a byte: the run goes on from the one before, and says so.
    good, *others = sorted((out / "checkpoints").iterdir(), reverse=True)
    for other in others:  # of a machine so slow that there was time for one
        other.unlink()
    damaged = good.with_name("epoch-00003-step-000003.safetensors")
    data = bytearray(good.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    resumed = run(*options, "--out", out, "--resume", out)
    assert f"warning: {damaged.name} is damaged" in resumed.stderr
    assert f"going on from {good}" in resumed.stdout
    assert not (out / "checkpoints").exists()
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_killed_run_goes_on_from_what_it_kept(folder: Path, tmp_path: Path) -> None:
    options = ("train", folder, *QUICK, "--train", "1", "--epochs", "3", "--batch-size", "4")
    run(*options, "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    # Checkpoints after every epoch and step, however quick.
    code = (
        "import sys; from app.vision.training import loop; from app.vision.command import train;"
        "loop.REST_S = loop.LONGEST_S = 0.0; train.main(sys.argv[1:])"
    )
    arguments = [sys.executable, "-c", code, *map(str, options), "--out", str(out)]
    with subprocess.Popen(arguments, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 2/3"):
                process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert len(kept) in (2, 3)
    assert any("-best" in name for name in kept)
    run(*options, "--out", out, "--resume", out)
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_errors_are_one_line_that_says_what_to_do(
    trained: tuple[Path, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "out")
    cases: list[tuple[list[str | Path], int, str]] = [
        (["train", tmp_path / "nowhere", *QUICK, *out], 1, "is not a folder; expected FOLDER/ants/1.jpg"),
        (["train", folder, *out, "--backbone", "resnet19"], 2, "--backbone: There is no backbone 'resnet19'. Did you"),
        (["train", folder, *QUICK, *out, "--learning-rate", "-1"], 2, "--learning-rate: -1.0 is not allowed; use a n"),
        (["train", folder, *QUICK, *out, "--learning-rate", "fast"], 2, "'fast' cannot be read; use a number."),
        (["train", folder, *QUICK, *out, "--optimizer", "lion"], 2, "'lion' cannot be read; use sgd, adam, adamw"),
        (["train", folder, *QUICK, *out, "--train", "everything"], 2, "--train: 'everything' is not known; use one of"),
        (["train", folder, *QUICK, *out, "--train", "9"], 2, "--train: 9 is not allowed; use a whole number from 1"),
        (["train", folder, *QUICK, *out, "--head-dropout", "2"], 2, "--head-dropout: 2.0 is not allowed"),
        (["train", folder, *QUICK, *out, "--val-fraction", "1"], 1, "--val-fraction 1 and --test-fraction 0"),
        (["train", folder, *QUICK, *out, "--weights", tmp_path / "no.pth"], 1, "there is no such file or folder"),
        (["train", folder, *QUICK, *out, "--weights", folder / "disc" / "0.png"], 1, "cannot be read"),
        (["train", folder, *QUICK, "--out", trained[0]], 1, "already holds a model: name another folder with --out"),
        (["predict", tmp_path / "no.safetensors", "x.jpg"], 1, "no.safetensors cannot be read"),
        ([], 2, "the following arguments are required"),
    ]
    for arguments, code, says in cases:
        try:
            answer = main([*map(str, arguments)])
        except SystemExit as error:  # argparse, after the usage
            answer = int(error.code or 0)
        line = capsys.readouterr().err.splitlines()[-1]
        assert says in line
        assert "error: " in line
        assert answer == code
    assert run("train", tmp_path / "nowhere", *QUICK, code=1).stderr.count("\n") == 1


def test_weights_that_cannot_be_had_say_how_to_supply_them(folder: Path, tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"TORCH_HOME": str(tmp_path)}
    arguments = command("train", folder, "--backbone", "resnet34", "--no-download", "--out", tmp_path / "out")
    done = subprocess.run(arguments, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for part in ("resnet34-b627a593.pth", "https://download.pytorch.org/models/", "--weights"):
        assert part in done.stderr


def test_every_option_of_a_configuration_says_what_it_means_its_bounds_and_its_default() -> None:
    options = {option.name: option for option in options_of()}
    meanings = {name: option.parameter.meaning for name, option in options.items()}
    assert all(meanings.values())
    assert options["mixup"].help == f"{meanings['mixup']} (0 to 10; default: 0)"
    assert options["compile"].help == f"{meanings['compile']} (default: no)"
    assert options["epochs"].help == f"{meanings['epochs']} (1 to 10000; default: 40 for the head, else 12)"


def test_every_field_of_the_configuration_has_an_option(folder: Path) -> None:
    shown = run("train", "--help").stdout
    for item in dataclasses.fields(TrainConfig):
        if item.name not in ("head", "last_stages"):
            assert re.search(rf"^  {option_name(item.name)}\b", shown, re.MULTILINE), item.name


@dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fields:
    """Every kind of field that a configuration may get."""

    flag: bool = False
    size: int | Literal["auto"] | None = None
    names: tuple[str, ...] | None = None
    kind: Literal["a", "b"] = "a"
    steps: tuple[dict[str, Any], ...] = ()
    inner: Inner | None = field(default=None)


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ("--flag", "flag", True),
        ("--no-flag", "flag", False),
        ("--size auto", "size", "auto"),
        ("--size 8", "size", 8),
        ("--names a,b", "names", ["a", "b"]),
        ("--kind b", "kind", "b"),
        ('--steps [{"name":"flip"}]', "steps", [{"name": "flip"}]),
        ("--inner-rates 0.1,1e-3", "inner.rates", [0.1, 0.001]),
    ],
)
def test_a_new_field_of_any_kind_is_read(arguments: str, name: str, value: Any) -> None:
    parser = argparse.ArgumentParser()
    add_config_options(parser, Fields)
    assert vars(parser.parse_args(arguments.split())) == {name: value}


def test_values_are_nested_as_the_configuration_reads_them() -> None:
    namespace = argparse.Namespace(**{"epochs": 3, "head.hidden": [4], "head.dropout": 0.5, "out": Path("x")})
    assert config_values(namespace) == {"epochs": 3, "head": {"hidden": [4], "dropout": 0.5}}
