"""A second task is one folder and its name: it is trained, resumed, stored, served by engines, and answers."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.vision.artefacts.model_file import load_model, read_model_document
from app.vision.artefacts.tables import csv_lines, json_lines
from app.vision.command.predict import Asked
from app.vision.command.train import main
from app.vision.data.folder_names import Split
from app.vision.data.samples import Sample
from app.vision.engines.choice import measure, outputs_of
from app.vision.engines.engine import Engine, TorchBfloat16
from app.vision.errors import DamagedArtefact, InvalidData, Stopped
from app.vision.settings.config import TrainConfig
from app.vision.tasks import TASKS, default_task, part_of_task
from app.vision.training.fit import find_rate, fit
from app.vision.training.pictures import write_pictures
from app.vision.training.result import FitResult
from tests.support.images import REPOSITORY
from tests.support.pictures import Recorder
from tests.support.runs import WEIGHTS

FIELDS = {"backbone": "resnet18-tiny64", "input_size": 32, "epochs": 3, "batch_size": 8, "learning_rate": 0.01}


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "mean-brightness", "tests.support.toy_task")
        yield


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Noisy pictures from black to white: 32 to learn from, 24 to validate on."""
    folder, rng, samples = tmp_path_factory.mktemp("greys"), np.random.default_rng(0), []
    splits: list[Split] = ["train"] * 32 + ["val"] * 24
    for number, split in enumerate(splits):
        level = int(rng.integers(20, 235))
        pixels = np.clip(rng.normal(level, 15, (40, 40, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        samples.append(Sample(path, round(float(pixels.mean())), split))
    return samples


def train(greys: list[Sample], folder: Path, observer: Recorder | None = None, **given: object) -> FitResult:
    resume = given.pop("resume", None)
    assert resume is None or isinstance(resume, Path)
    return fit(
        TrainConfig(**FIELDS | given),  # type: ignore[arg-type]
        greys,
        (),
        weights=WEIGHTS,
        workdir=folder,
        observer=observer or Recorder(),
        resume=resume,
        task="mean-brightness",
    )


@pytest.fixture(scope="module")
def trained(greys: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return train(greys, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("fields", [{"epochs": 12}, {"train": "last_stages", "mixup": 0.2, "ema": 0.5}])
def test_it_learns_by_its_own_loss_and_keeps_the_epoch_with_the_smallest_error(
    greys: list[Sample], tmp_path: Path, fields: dict[str, object]
) -> None:
    recorder = Recorder()
    result = train(greys, tmp_path, recorder, **fields)
    assert result.task == "mean-brightness"
    errors = [record["val_error"] for record in result.history]
    assert result.best_epoch == 1 + errors.index(min(errors))
    assert recorder.epochs == result.history
    assert list(result.history[0])[:6] == ["epoch", "epochs", "train_loss", "train_error", "val_loss", "val_error"]
    assert result.history[-1]["train_loss"] < 0.5 * result.history[0]["train_loss"]
    assert result.metrics["val"]["mean_error"] == pytest.approx(min(errors), abs=0.02)
    assert not {"train_accuracy", "val_accuracy", "classes"} & result.history[0].keys()


def test_a_stopped_run_ends_where_an_unbroken_one_does(greys: list[Sample], tmp_path: Path) -> None:
    unbroken = train(greys, tmp_path / "unbroken")
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        train(greys, tmp_path / "stopped", Recorder(stop_after=6, keep=kept))
    resumed = train(greys, tmp_path / "resumed", resume=kept)
    assert resumed.model_path.read_bytes() == unbroken.model_path.read_bytes()
    assert [one["train_error"] for one in resumed.history] == [one["train_error"] for one in unbroken.history]
    with pytest.raises(DamagedArtefact, match="other data"):  # nor does another task go on with it
        fit(
            TrainConfig(**FIELDS),  # type: ignore[arg-type]
            [Sample(one.path, number % 2, one.split) for number, one in enumerate(greys)],
            ("dark", "bright"),
            weights=WEIGHTS,
            workdir=tmp_path / "other",
            observer=Recorder(),
            resume=kept,
        )


def test_the_model_file_names_its_task_and_answers_what_was_measured(greys: list[Sample], trained: FitResult) -> None:
    document = read_model_document(trained.model_path)
    assert document["task"] == "mean-brightness"
    assert "classes" not in document
    model = load_model(trained.model_path)
    held_out = [one for one in greys if one.split == "val"]
    images = np.stack([model.prepare(one.path) for one in held_out])
    answers = model.answer(images)
    np.testing.assert_allclose(answers, trained.finished.arrays["brightness"]["val"][:, 0], atol=1e-5)
    said = model.answers.describe(answers[0], Asked(1), None)
    assert said["brightness"] == answers[0]
    assert model.answers.text(said) == f"{answers[0]:.0%}"

    # Another engine is compared with the reference as this task compares, and answers in its place.
    engine: Engine = TorchBfloat16(model.network, model.preprocessing)
    agreement = partial(
        model.answers.agreement, reference=outputs_of(model.reference, images), labels=np.zeros(24, np.int64)
    )
    found = measure(engine, images, agreement)
    assert found.agreement is not None
    assert found.agreement > 0.9
    assert found.accuracy_drop is None
    model.engine = engine
    np.testing.assert_allclose(model.answer(images), answers, atol=0.2)


def test_an_exported_engine_names_its_outputs(greys: list[Sample], trained: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from app.vision.engines.onnx_engines import OnnxRuntime, export_onnx

    model = load_model(trained.model_path)
    export_onnx(model.network, model.preprocessing, tmp_path / "model.onnx")
    images = np.stack([model.prepare(one.path) for one in greys[:4]])
    outputs, expected = OnnxRuntime(tmp_path / "model.onnx", 1).outputs(images), model.reference.outputs(images)
    assert list(outputs) == list(expected) == ["brightness", "features"]
    np.testing.assert_allclose(outputs["brightness"], expected["brightness"], atol=1e-4)


def test_its_pictures_and_tables_are_written_and_the_command_answers(
    greys: list[Sample], trained: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (picture,) = write_pictures(tmp_path, trained.pictures)
    with Image.open(picture) as opened:
        assert opened.format == "PNG"
    table = trained.tables["brightness-val"]
    assert len(list(json_lines(table.rows()))) == 24
    assert next(csv_lines(table.rows(), table.columns)) == b"image,true,found\r\n"
    assert main(["predict", str(trained.model_path), str(greys[-1].path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["image"] == str(greys[-1].path)
    assert said["brightness"] == pytest.approx(list(table.rows())[-1]["found"], abs=1e-5)


def test_a_rate_is_found_and_bad_labels_are_refused(greys: list[Sample], tmp_path: Path) -> None:
    config = TrainConfig(**FIELDS | {"learning_rate": None})  # type: ignore[arg-type]
    found = find_rate(
        config, greys, (), weights=WEIGHTS, workdir=tmp_path / "rate", observer=Recorder(), task="mean-brightness"
    )
    assert found.suggestion > 0
    with pytest.raises(InvalidData, match="whole number from 0 to 255"):
        train([*greys, Sample(greys[0].path, 300, "val")], tmp_path / "bad")


def modules() -> Iterator[Path]:
    for top in ("app", "worker"):
        yield from (REPOSITORY / top).rglob("*.py")


def test_nothing_outside_its_folder_names_a_task() -> None:
    """Neither an import of the folder nor its name as a text; what a task needs is its folder and a line in `TASKS`."""
    folders = {name: package.replace(".", "/") for name, package in TASKS.items()}
    naming = []
    for path in modules():
        place = path.relative_to(REPOSITORY).as_posix()
        if place == "app/vision/tasks/__init__.py" or any(place.startswith(f"{one}/") for one in folders.values()):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.ImportFrom) and str(node.module).startswith(tuple(TASKS.values()))
            text = isinstance(node, ast.Constant) and node.value in TASKS
            if named or text:
                naming.append(f"{place}:{node.lineno}")  # type: ignore[attr-defined]
    assert naming == []
    files = [path for path in (REPOSITORY / folders["mean-brightness"]).iterdir() if path.suffix == ".py"]
    print(f"\nthe toy task is {len(files)} files of its own and one line in TASKS; it touches no other file")
    assert len(files) <= 5


def test_the_parts_that_name_things_load_no_torch() -> None:
    import subprocess
    import sys

    parts = ["answers", "tables"]
    program = "import sys; from app.vision.tasks import part_of_task\n" + "".join(
        f"part_of_task({part!r})\n" for part in parts
    )
    program += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_files_that_name_no_task_are_of_the_first_one() -> None:
    assert default_task() == "classify"
    with pytest.raises(KeyError):
        part_of_task("task", "nonsense")
