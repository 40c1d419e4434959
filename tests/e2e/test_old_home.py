"""A home that an earlier commit has written is migrated, listed, served and resumed by this tree.

The earlier commit's own service, in its own environment, leaves a home with a dataset, a model, a finished and an
unfinished prediction of many images, and a training that a SIGTERM has stopped after its first epoch. A copy of that
home is continued by the earlier commit, the home itself by this tree, and both must come to the same.

`python -m bench.old_home --commit COMMIT` runs this; without GRAFT_TEST_BEFORE, a checkout with an environment, it is
skipped. GRAFT_TEST_ADDED names the keys that a model file of this tree may say beside the earlier ones.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench.checkouts import Checkout, existing_checkout, this_checkout
from bench.equality import difference
from tests.support import images
from tests.support.homes import Home, answers, ended, lost, model_of, seen, submit, untimed
from tests.support.servers import postgres

BEFORE = os.environ.get("GRAFT_TEST_BEFORE", "")
ADDED = [name for name in os.environ.get("GRAFT_TEST_ADDED", "").split(",") if name]
pytestmark = [
    pytest.mark.skipif(not BEFORE, reason="GRAFT_TEST_BEFORE names no checkout; python -m bench.old_home does"),
    pytest.mark.timeout(3000),
]

HEAD = {"dataset": "textures", "model_name": "first", "epochs": 3, "input_size": 64, "target_precision": 0.6}
LONG = {"dataset": "textures", "model_name": "long", "train": {"last_stages": 2}, "epochs": 4}
LONG |= {"batch_size": 8, "input_size": 64, "ema": 0.9, "mixup": 0.2, "augmentation": "light"}
PREDICT = {"model": "first", "dataset": "textures", "top_k": 3}
UNTIL_GARBAGE = 6.0  # seconds, by when a collector with the settings below has been at work


@dataclass(frozen=True)
class Left:
    """What the earlier commit left: the home, its copy, and what it said while it ran."""

    home: Home
    copy: Home
    undisturbed: str  # the SHA-256 of the model of the long training that nothing stopped
    answers: list[Any]
    seen: dict[str, Any]
    blobs: set[str]
    training: str  # the id of the one that was stopped
    predicting: str  # likewise


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    folder = tmp_path_factory.mktemp(request.param)
    before = existing_checkout(Path(BEFORE))
    with ExitStack() as stack:
        server = stack.enter_context(postgres()) if request.param == "postgresql" else None
        settings, copied = ({"GRAFT_DATABASE_URL": server.url(name)} if server else {} for name in ("old", "copy"))
        home, copy = Home(folder / "home", settings), Home(folder / "copy", copied)
        home.folder.mkdir()
        if server:
            with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE old")
        with home.served(before) as http:
            archive = images.folder_zip({"brick": 30, "moss": 30, "sky": 30})
            http.post("/v1/datasets", params={"name": "textures"}, content=archive).raise_for_status()
            ready = http.get("/v1/datasets/textures", params={"wait": 60}).raise_for_status().json()
            assert ready["state"] == "ready", ready
            ended(http, submit(http, "/v1/jobs", HEAD))
            ended(http, submit(http, "/v1/jobs:predict", PREDICT))
            undisturbed = model_of(http, ended(http, submit(http, "/v1/jobs", LONG)))
            said = answers(http)
            training = submit(http, "/v1/jobs", LONG)
            while not http.get(f"/v1/jobs/{training}/metrics").raise_for_status().json()["items"]:
                time.sleep(0.05)
            predicting = submit(http, "/v1/jobs:predict", PREDICT)
        with home.served(before, "api") as http:
            everything = seen(http)
            states = [everything[f"/v1/jobs/{job}"]["state"] for job in (training, predicting)]
            assert states == ["queued", "queued"], "a job ended before it could be stopped"
        shutil.copytree(home.folder, copy.folder, ignore=shutil.ignore_patterns("doorbell", "cache"))
        if server:
            with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE copy TEMPLATE old")
        yield Left(home, copy, undisturbed, said, everything, home.blobs(), training, predicting)


def test_it_is_migrated_and_everything_is_listed_as_it_was(left: Left) -> None:
    left.home.run(this_checkout(), "migrate")
    with left.home.served(this_checkout(), "api") as http:
        found = lost(left.seen, seen(http))
    assert not found, "\n".join(found)


@dataclass(frozen=True)
class Ending:
    """What a checkout made of the home: the long training's model, all answers, all that it says, all blobs."""

    model: Path
    answers: list[Any]
    training: dict[str, Any]
    epochs: list[dict[str, Any]]
    seen: dict[str, Any]
    blobs: set[str]


def ending(home: Home, checkout: Checkout, left: Left) -> Ending:
    """Let that checkout end both jobs and collect what nothing refers to."""
    with home.served(checkout) as http:
        said = answers(http)
        training = ended(http, left.training)
        ended(http, left.predicting)
        epochs = http.get(f"/v1/jobs/{left.training}/metrics").raise_for_status().json()["items"]
        time.sleep(UNTIL_GARBAGE)
        model = home.blob(model_of(http, training))
        return Ending(model, said, training, epochs, seen(http), home.blobs())


def test_it_answers_and_goes_on_as_with_the_commit_that_wrote_it(left: Left) -> None:
    control, ours = ending(left.copy, existing_checkout(Path(BEFORE)), left), ending(left.home, this_checkout(), left)
    assert control.model.name == left.undisturbed
    assert difference(control.model, ours.model, ADDED) is None
    assert control.answers == ours.answers == left.answers

    for field_ in ("state", "spec", "attempt", "kind", "name", "created_at", "dataset_version_id", "checkpoint"):
        assert ours.training.get(field_) == control.training.get(field_), field_
    assert [untimed(one) for one in ours.epochs] == [untimed(one) for one in control.epochs]
    assert len(ours.epochs) == LONG["epochs"]

    rows = f"rows of {left.predicting}"
    assert ours.seen[rows] == control.seen[rows]
    # All that was there before is as it was, beside the two jobs and the model that has come since.
    ended_since = {path for path in left.seen if left.training in path or left.predicting in path or "?" in path}
    found = lost({path: one for path, one in left.seen.items() if path not in ended_since}, ours.seen)
    assert not found, "\n".join(found)

    kept = left.blobs & control.blobs
    assert kept <= ours.blobs, f"{len(kept - ours.blobs)} blobs are gone that the earlier commit keeps"
