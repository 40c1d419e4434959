"""The `graft` command as a person or a script uses it: real processes against a real service."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.trainings.schemas import TrainRequest
from tests.support import deployments, images
from tests.support.deployments import GRAFT, environment, service_of
from tests.support.services import Service

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with deployments.embedded(tmp_path_factory.mktemp("cli") / "home") as service:
        yield service


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes, and one file in it that is no image."""
    folder = tmp_path_factory.mktemp("textures") / "textures"
    for label, name in enumerate(("brick", "moss", "sky")):
        (folder / name).mkdir(parents=True)
        for seed in range(12):
            (folder / name / f"{seed}.jpg").write_bytes(images.jpeg(images.photo(label, seed, (96, 80))))
    (folder / "moss" / "note.jpg").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def trained(service: Service, folder: Path) -> dict[str, Any]:
    """The model that `graft datasets push` and `graft train` end in."""
    pushed = graft(service, "datasets", "push", str(folder), "--json")
    assert pushed.returncode == 0, pushed.stderr
    dataset = json.loads(pushed.stdout)
    assert dataset["name"] == "textures"
    assert [one["file"] for one in dataset["report"]["rejected"]] == ["moss/note.jpg"]
    done = graft(service, "train", "textures", "--epochs", "5", "--json")
    assert done.returncode == 0, done.stderr
    model: dict[str, Any] = json.loads(done.stdout)
    return model


def graft(service: Service, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {**service.environment, **more}
    return subprocess.run([*GRAFT, *arguments], env=variables, cwd=service.home, capture_output=True, text=True)


def test_help_answers_without_the_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['graft', '--help']\n"
        "from app.cli.main import run\n"
        "try:\n"
        "    run()\n"
        "finally:\n"
        "    heavy = {'torch', 'torchvision', 'sqlalchemy', 'fastapi', 'httpx2', 'numpy'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    for command in ("up", "demo", "train", "predict", "backbones", "datasets", "jobs", "keys"):
        assert f" {command} " in answer.stdout


def test_workers_are_listed(service: Service, trained: dict[str, Any]) -> None:
    listed = graft(service, "workers", "--json")
    (worker,) = json.loads(listed.stdout)["items"]
    assert (worker["state"], worker["train_slots"], worker["problem"]) == ("alive", 1, None)
    (device,) = worker["devices"]
    shown = graft(service, "workers", COLUMNS="300")
    assert worker["name"] in shown.stdout
    assert device["name"] in shown.stdout


def test_push_and_train_show_a_person_what_came_out(service: Service, folder: Path, trained: dict[str, Any]) -> None:
    shown = graft(service, "datasets", "show", "textures")
    assert "36 of 37 files kept" in shown.stdout
    assert "moss/note.jpg" in shown.stdout
    model = graft(service, "models", "show", "textures")
    assert "precision" in model.stdout
    for name in ("brick", "moss", "sky"):
        assert name in model.stdout
    assert "textures" in graft(service, "datasets", "list").stdout
    assert trained["id"] in graft(service, "models", "list", "--json").stdout


def test_a_plan_is_shown_and_nothing_is_queued(service: Service, trained: dict[str, Any]) -> None:
    before = json.loads(graft(service, "jobs", "list", "--json").stdout)
    planned = json.loads(graft(service, "train", "textures", "--epochs", "5", "--plan", "--json").stdout)
    assert planned["seconds"]["value"] > 0  # the worker that trained the like of it is alive
    assert planned["network"]["classes"] == ["brick", "moss", "sky"]
    shown = graft(service, "train", "textures", "--plan", COLUMNS="300")
    assert shown.returncode == 0, shown.stderr
    assert "brick" in shown.stdout
    assert "parameters learn: head" in shown.stdout
    assert f"{planned['memory']['value'] / 2**20:,.0f} MiB" in shown.stdout
    assert "warning" in shown.stdout
    assert json.loads(graft(service, "jobs", "list", "--json").stdout) == before


# How a person says each field of how to train, none of it a default, and what becomes of it.
SAID: dict[str, tuple[tuple[str, ...], Any]] = {
    "train": (("--train", "all"), "all"),
    "head": (
        ("--hidden", "32", "--hidden", "16", "--dropout", "0.5", "--pooling", "gem"),
        {"hidden": [32, 16], "dropout": 0.5, "pooling": "gem"},
    ),
    "epochs": (("--epochs", "9"), 9),
    "batch_size": (("--batch-size", "auto"), "auto"),
    "optimizer": (("--optimizer", "sgd"), "sgd"),
    "learning_rate": (("--learning-rate", "2e-2"), 0.02),
    "schedule": (("--schedule", "one_cycle"), "one_cycle"),
    "weight_decay": (("--weight-decay", "0.25"), 0.25),
    "augmentation": (
        ("--augmentation", '[{"name": "rotate", "degrees": 15}]'),
        [{"name": "rotate", "degrees": 15.0}],
    ),
    "input_size": (("--input-size", "64"), 64),
    "seed": (("--seed", "5"), 5),
    "warmup": (("--warmup", "0.25"), 0.25),
    "layer_decay": (("--layer-decay", "0.5"), 0.5),
    "unfreeze_every": (("--unfreeze-every", "1"), 1),
    "accumulate": (("--accumulate", "2"), 2),
    "clip_norm": (("--clip-norm", "1.5"), 1.5),
    "l1": (("--l1", "0.125"), 0.125),
    "label_smoothing": (("--label-smoothing", "0.125"), 0.125),
    "patience": (("--patience", "3"), 3),
    "ema": (("--ema", "0.75"), 0.75),
    "imbalance": (("--imbalance", "sampling"), "sampling"),
    "focal_gamma": (("--focal-gamma", "2"), 2.0),
    "mixup": (("--mixup", "0.25"), 0.25),
    "cutmix": (("--cutmix", "1"), 1.0),
    "precision": (("--precision", "float32"), "float32"),
    "compile": (("--compile",), True),
    "on_out_of_memory": (("--on-out-of-memory", "shrink"), "shrink"),
    "views": (("--views", "2"), 2),
    "loader_workers": (("--loader-workers", "1"), 1),
    "target_precision": (("--target-precision", "0.75"), 0.75),
    "resources": (("--processes", "2"), {"processes": 2, "machines": 1}),
    "model_name": (("--name", "walls"), "walls"),
}
SCHEDULED = {"priority": 7, "run_after": "2099-01-31T22:00:00Z", "max_attempts": 2, "max_seconds": 60.5}


def test_a_person_can_say_all_that_a_request_can(service: Service, trained: dict[str, Any]) -> None:
    def spec(*arguments: str) -> dict[str, Any]:
        answer = graft(service, "train", "textures", *arguments, "--plan", "--json")
        assert answer.returncode == 0, answer.stderr
        planned: dict[str, Any] = json.loads(answer.stdout)["spec"]
        return planned

    default = spec()
    said = spec(*(word for words, _ in SAID.values() for word in words))
    for field, (_, value) in SAID.items():
        assert said[field] == value != default.get(field), field
    assert spec("--find-rate")["find_rate"] is True  # goes with neither a rate nor an automatic batch
    grown = spec("--base-model", trained["id"], "--backbone", "resnet18-tiny64")
    assert grown["lineage"][0]["model_id"] == trained["id"]
    assert set(TrainRequest.model_fields) == {*SAID, "find_rate", "dataset", "backbone", "base_model", *SCHEDULED}


def test_predict_by_name_and_by_id(service: Service, folder: Path, trained: dict[str, Any]) -> None:
    files = [str(folder / "brick" / "0.jpg"), str(folder / "sky" / "1.jpg")]
    by_name = graft(service, "predict", "textures", *files, "--json")
    assert by_name.returncode == 0, by_name.stderr
    items = json.loads(by_name.stdout)["items"]
    assert [item["predictions"][0]["label"] for item in items] == ["brick", "sky"]
    by_id = json.loads(graft(service, "predict", trained["id"], *files, "--json").stdout)["items"]
    for first, second in zip(items, by_id, strict=True):
        # The two calls need not fall into batches alike, and an engine of reduced precision may have taken over.
        assert [one["label"] for one in second["predictions"]] == [one["label"] for one in first["predictions"]]
        assert [one["probability"] for one in second["predictions"]] == pytest.approx(
            [one["probability"] for one in first["predictions"]], abs=0.02
        )
    assert "brick" in graft(service, "predict", "textures", *files).stdout

    assert graft(service, "models", "alias", "textures", "production", trained["id"]).returncode == 0
    by_alias = graft(service, "predict", "textures@production", *files, "--json", "--threshold", "0.5")
    assert [[one["label"] for one in item["predictions"]] for item in json.loads(by_alias.stdout)["items"]] == [
        ["brick"],
        ["sky"],
    ]
    assert graft(service, "models", "alias", "textures", "production", "--delete").returncode == 0
    assert graft(service, "models", "show", "textures@production").returncode == 1


def test_a_model_is_pinned_and_unpinned(service: Service, trained: dict[str, Any]) -> None:
    def pinned() -> bool:
        return bool(json.loads(graft(service, "models", "show", trained["id"], "--json").stdout)["pinned"])

    assert not pinned()
    assert graft(service, "models", "pin", trained["id"]).returncode == 0
    assert pinned()
    assert graft(service, "models", "unpin", trained["id"]).returncode == 0
    assert not pinned()


def test_a_target_of_precision_is_set_and_taken_away(service: Service, trained: dict[str, Any]) -> None:
    decisions = "models", "decisions", "textures"
    shown = graft(service, *decisions, "--target-precision", "0.5", COLUMNS="300")
    assert "At a target precision of 0.5" in shown.stdout, shown.stderr
    found = json.loads(graft(service, *decisions, "--json").stdout)["decisions"]
    assert (found["target_precision"], set(found["thresholds"])) == (0.5, {"brick", "moss", "sky"})
    assert graft(service, *decisions, "--delete", "--target-precision", "0.5").returncode == 2
    assert json.loads(graft(service, *decisions, "--delete", "--json").stdout) == {"decisions": None}
    assert "No target precision is set" in graft(service, *decisions, COLUMNS="300").stdout


def test_predict_a_dataset_in_a_job(service: Service, trained: dict[str, Any], tmp_path: Path) -> None:
    table, lines = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    answer = graft(service, "predict", "textures", "--dataset", "textures", "--split", "val", "--out", str(table))
    assert answer.returncode == 0, answer.stderr
    assert "brick" in answer.stdout
    header, *rows = table.read_text().splitlines()
    assert header.startswith("image,id,split,label,status,decision,ood_score,predicted,probability")
    assert {row.split(",")[2] for row in rows} == {"val"}
    (job,) = json.loads(graft(service, "jobs", "list", "--kind", "predict", "--json").stdout)["items"]
    assert (job["state"], job["result"]["images"]) == ("succeeded", len(rows))
    shown = graft(service, "jobs", "list", "--kind", "predict", COLUMNS="300")
    assert job["id"] in shown.stdout
    assert job["id"] not in graft(service, "jobs", "list", COLUMNS="300").stdout
    assert graft(service, "jobs", "predictions", job["id"], "--out", str(lines)).returncode == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["image"] for row in found] == [row.split(",")[0] for row in rows]
    watched = graft(service, "jobs", "watch", job["id"])
    assert (watched.returncode, "brick" in watched.stdout) == (0, True)

    later = graft(service, "predict", "textures", "--dataset", "textures", "--top-k", "1", "--detach")
    assert later.returncode == 0, later.stderr
    watched = graft(service, "jobs", "watch", later.stdout.strip(), "--json")
    assert json.loads(watched.stdout)["spec"]["top_k"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["textures"],
        ["textures", "a.jpg", "--dataset", "textures"],
        ["textures", "a.jpg", "--split", "val"],
        ["textures", "a.jpg", "--out", "rows.csv"],
        ["textures", "--dataset", "textures"],
        ["textures", "--dataset", "textures", "--out", "rows.txt"],
    ],
)
def test_predict_says_what_goes_with_what(service: Service, arguments: list[str]) -> None:
    answer = graft(service, "predict", *arguments)
    assert answer.returncode == 2
    assert "--" in answer.stderr
    assert answer.stdout == ""


def test_predict_exits_1_where_an_image_could_not_be_read(
    service: Service, folder: Path, trained: dict[str, Any]
) -> None:
    answer = graft(service, "predict", "textures", str(folder / "sky" / "0.jpg"), str(folder / "moss" / "note.jpg"))
    assert answer.returncode == 1
    assert "sky" in answer.stdout


def test_a_models_report_is_written_into_a_folder(service: Service, trained: dict[str, Any], tmp_path: Path) -> None:
    answer = graft(service, "models", "report", "textures", "--out", str(tmp_path / "report"), "--json")
    assert answer.returncode == 0, answer.stderr
    pictures = ["confusion-val.png", "coverage-val.png", "curves.png", "reliability-val.png"]
    tables = ["evaluations-val.csv", "evaluations-val.jsonl"]
    assert json.loads(answer.stdout)["files"] == sorted([*pictures, *tables, "report.json"])
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["model"]["id"] == trained["id"]
    rows = (tmp_path / "report" / "evaluations-val.csv").read_text().splitlines()
    assert len(rows) == 1 + trained["metrics"]["val"]["samples"]
    assert (tmp_path / "report" / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_jobs_are_listed_shown_watched_and_cancelled(service: Service, trained: dict[str, Any]) -> None:
    (job,) = json.loads(graft(service, "jobs", "list", "--json").stdout)["items"]
    assert job["state"] == "succeeded"
    shown = json.loads(graft(service, "jobs", "show", job["id"], "--json").stdout)
    assert len(shown["epochs"]) == 5
    assert "val_accuracy" in graft(service, "jobs", "show", job["id"]).stdout
    assert graft(service, "jobs", "watch", job["id"]).returncode == 0
    detached = graft(service, "train", "textures", "--train", "all", "--epochs", "900", "--detach")
    assert detached.returncode == 0, detached.stderr
    long_job = detached.stdout.strip()
    assert graft(service, "jobs", "cancel", long_job).stdout.strip() in ("cancelling", "cancelled")
    watched = graft(service, "jobs", "watch", long_job)
    assert watched.returncode == 1
    assert "cancelled" in watched.stderr
    assert graft(service, "jobs", "cancel", job["id"]).returncode == 1


def test_a_person_can_say_when_and_how_often_a_training_runs(service: Service, trained: dict[str, Any]) -> None:
    words = [word for field, value in SCHEDULED.items() for word in (f"--{field.replace('_', '-')}", str(value))]
    job = json.loads(graft(service, "train", "textures", *words, "--detach", "--json").stdout)
    assert {field: job[field] for field in SCHEDULED} == SCHEDULED
    assert graft(service, "jobs", "cancel", job["id"]).returncode == 0


def test_what_is_listed_has_a_line_each_on_a_narrow_terminal(service: Service, trained: dict[str, Any]) -> None:
    listed = graft(service, "models", "list", COLUMNS="50").stdout.splitlines()
    assert listed[0].split() == ["name", "backbone", "classes", "val", "accuracy", "id"]
    (line,) = [one for one in listed if trained["id"] in one]
    accuracy = f"{trained['metrics']['val']['accuracy']:.3f}"
    assert line.split() == ["textures", "resnet18-tiny64", "3", accuracy, trained["id"]]


def test_a_target_is_trained_towards_shown_and_answered(service: Service, folder: Path) -> None:
    """Two or three validation images of a class can show no precision at all, and that is said."""
    options = ("--epochs", "2", "--name", "strict", "--target-precision", "0.8")
    done = graft(service, "train", "textures", *options)
    assert done.returncode == 0, done.stderr
    shown = graft(service, "models", "show", "strict").stdout
    words = " ".join(shown.split())
    assert "At a target precision of 0.8, 0.0% of the val images are accepted, and 0 images are unknown." in words
    assert "never accepted, because validation does not prove the target: brick, moss, sky" in words
    sky = str(folder / "sky" / "1.jpg")
    answered = graft(service, "predict", "strict", sky).stdout
    assert "decision" in answered
    assert "abstain" in answered
    assert "decision" not in graft(service, "predict", "textures", sky).stdout
    model = json.loads(graft(service, "models", "show", "strict", "--json").stdout)
    assert graft(service, "models", "delete", model["id"]).returncode == 0


def test_a_dataset_is_changed_frozen_and_downloaded(
    service: Service, folder: Path, trained: dict[str, Any], tmp_path: Path
) -> None:
    new, bad = tmp_path / "new.png", tmp_path / "bad.png"
    new.write_bytes(images.png(images.photo(1, 99)))
    bad.write_text("no image")
    added = graft(service, "datasets", "add", "textures", str(new), str(bad), "--label", "moss")
    assert (added.returncode, "new.png: added" in added.stdout) == (1, True)
    assert "1 of 2 files were not added" in added.stderr
    (one,) = json.loads(graft(service, "datasets", "images", "textures", "--limit", "1", "--json").stdout)["items"]
    assert (one["name"], one["label"], one["split"]) == ("new.png", "moss", "train")
    assert one["sha256"] in graft(service, "datasets", "images", "textures", "--label", "moss").stdout
    edited = graft(service, "datasets", "edit", "textures", one["sha256"], "--label", "sky", "--split", "val")
    assert edited.stdout.strip() == "new.png: sky, val"
    assert graft(service, "datasets", "edit", "textures", one["sha256"]).returncode == 2
    assert graft(service, "datasets", "freeze", "textures").stdout.startswith("version 2 ")
    assert graft(service, "datasets", "remove", "textures", one["sha256"]).returncode == 0
    versions = json.loads(graft(service, "datasets", "versions", "textures", "--json").stdout)["items"]
    told = graft(service, "datasets", "report", "textures").stdout
    assert "warning: 1 files of the upload were left out, for instance moss/note.jpg" in told
    assert told.splitlines()[-1].startswith("36 images")
    target = tmp_path / "textures.zip"
    assert graft(service, "datasets", "download", "textures", str(target)).stdout.strip() == str(target)
    again = json.loads(graft(service, "datasets", "push", str(target), "--name", "again", "--json").stdout)
    assert again["version"]["sha256"] == versions[0]["sha256"]
    missing = graft(service, "datasets", "download", "textures", str(tmp_path / "no.zip"), "--version", "9")
    assert (missing.returncode, "no version 9" in missing.stderr) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "new.png", "textures.zip"]


def test_keys_are_made_used_and_revoked(service: Service) -> None:
    secret = graft(service, "keys", "create", "reader", "--scope", "read").stdout.strip()
    assert secret.startswith("gw_")
    assert graft(service, "datasets", "list", GRAFT_API_KEY=secret).returncode == 0
    refused = graft(service, "keys", "list", GRAFT_API_KEY=secret)
    assert refused.returncode == 4
    assert "admin" in refused.stderr
    keys = json.loads(graft(service, "keys", "list", "--json").stdout)["items"]
    (made,) = [key for key in keys if key["name"] == "reader"]
    assert graft(service, "keys", "revoke", made["id"]).returncode == 0
    gone = graft(service, "datasets", "list", GRAFT_API_KEY=secret)
    assert gone.returncode == 4
    assert "revoked" in gone.stderr


def test_backbones_are_listed_with_advice(service: Service) -> None:
    listed = graft(service, "backbones")
    assert "resnet50" in listed.stdout
    assert "resnet18-tiny64 *" in listed.stdout
    (one,) = json.loads(graft(service, "backbones", "resnet50", "--json").stdout)["items"]
    assert one["depth"] == 50
    assert one["advice"] in " ".join(graft(service, "backbones", "resnet50", COLUMNS="400").stdout.split())


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["train", "nothing"], 1, "no dataset 'nothing'"),
        (["train", "nothing", "--learning-rate", "-1"], 1, "learning_rate"),
        (["train", "nothing", "--backbone", "resnet19"], 1, "resnet18"),
        (["train", "nothing", "--machines", "2"], 1, "PostgreSQL"),
        (["datasets", "push", "no-such-folder"], 1, "no-such-folder"),
        (["predict", "nothing", __file__], 1, "no model 'nothing'"),
        (["predict", "nothing", "x.jpg"], 1, "x.jpg cannot be read"),
        (["models", "alias", "nothing", "production"], 2, "--delete"),
        (["jobs", "show", "not-an-id"], 1, "job_id"),
        (["train"], 2, "graft train --help"),
        (["train", "nothing", "--schedule", "slow"], 2, "'slow' cannot be read; use constant, step, cosine"),
        (["train", "nothing", "--epochs", "few"], 2, "'few' cannot be read; use a whole number."),
        (["nonsense"], 2, "nonsense"),
        (["up", "--port", "99999"], 2, "port"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    service: Service, arguments: list[str], exit_code: int, says: str
) -> None:
    answer = graft(service, *arguments)
    assert answer.returncode == exit_code, answer.stderr
    assert says in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert answer.stdout == ""


def test_a_service_that_is_away_and_a_wrong_key_have_exit_codes_of_their_own(service: Service) -> None:
    away = graft(service, "jobs", "list", GRAFT_URL="http://127.0.0.1:9")
    assert away.returncode == 3
    assert "graft up" in away.stderr
    assert graft(service, "jobs", "list", GRAFT_API_KEY="gw_wrong").returncode == 4
    bad = graft(service, "jobs", "list", GRAFT_PORT="many")
    assert bad.returncode == 1
    assert "GRAFT_PORT" in bad.stderr


def test_one_folder_serves_one_service(service: Service) -> None:
    second = graft(service, "up", "--port", "0")
    assert second.returncode == 1
    assert "already" in second.stderr


def test_the_key_file_is_for_its_owner_alone(service: Service) -> None:
    assert (service.home / "client.json").stat().st_mode & 0o077 == 0


def _group_is_alive(group: int) -> bool:
    """Whether anything of a process group is left; it is given ten seconds to go."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def test_the_service_stops_on_ctrl_c_and_comes_back_with_what_it_had(tmp_path: Path, folder: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    key = ""
    for round_ in range(2):
        variables = environment(home)
        command = [*GRAFT, "up", "--port", "0"]
        process = subprocess.Popen(
            command, env=variables, cwd=home, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stderr is not None
        while "is ready at" not in process.stderr.readline():
            assert process.poll() is None
        saved = json.loads((home / "client.json").read_text())
        with service_of(variables, saved["url"], saved["key"]) as service:
            if round_ == 0:
                key = saved["key"]
                assert graft(service, "datasets", "push", str(folder)).returncode == 0
            else:
                assert saved["key"] == key
                assert "textures" in graft(service, "datasets", "list").stdout
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        assert process.wait(300) == 0
        process.stderr.close()
        assert not _group_is_alive(process.pid)
    assert not any((home / "scratch").iterdir())


def test_the_demo_runs_on_a_users_own_images_and_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    variables = {**environment(tmp_path), "TMPDIR": str(tmp_path), "HOME": str(tmp_path), "COLUMNS": "120"}
    variables.pop("GRAFT_HOME")
    answer = subprocess.run(
        [*GRAFT, "demo", "--data", str(folder)], env=variables, cwd=tmp_path, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert "precision" in answer.stdout
    assert "of 3 right" in answer.stdout
    assert "33 of 34 files kept" in answer.stdout
    assert list(tmp_path.iterdir()) == []
