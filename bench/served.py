"""Run a service of a benchmark's own, with a model whose engine has been chosen, and the same model here."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.cli.client import Client
from app.cli.demo.command import own_service
from app.cli.pack import as_archive
from app.cli.show import watch_dataset, watch_job
from app.predictions.serving.engine_files import EngineFiles
from app.predictions.serving.engine_making import make_engine
from app.vision.artefacts.model_file import load_model
from app.vision.data.imagefolder import read_image_folder
from app.vision.engines.model import TrainedModel
from app.vision.engines.names import REFERENCE, EngineName
from bench.inputs import image_folder
from bench.load import Target, closed_loop
from bench.rounds import note


@dataclass(frozen=True)
class Served:
    """Hold a running service, its model as `GET /v1/models/{id}` says it, and the held-out JPEGs that are sent."""

    client: Client
    home: Path
    model: dict[str, Any]
    images: list[bytes]
    classifier: TrainedModel  # with the engine that the service chose, until it is given another

    @property
    def engine(self) -> str:
        return str(self.model["serving"]["engine"])

    def use_engine(self, name: EngineName) -> None:
        """Let `classifier` use it, from the service's own files, at the batch that the service measured."""
        files, sha256 = EngineFiles(self.home / "engines", 2**40), self.model["artefact_sha256"]

        def calibration() -> NDArray[np.uint8]:
            raise SystemExit("the service's own INT8 file is not where it was")

        engine = make_engine(name, self.classifier, partial(files.get, sha256), calibration)
        found = next(one for one in self.model["engines"][0]["measured"] if one["engine"] == engine.name)
        engine.batch = found["batch"] or engine.batch  # None where nothing was measured
        self.classifier.engine = engine

    def target(self, **query: Any) -> Target:
        asked = "&".join(f"{name}={value}" for name, value in {"top_k": 1, **query}.items())
        headers = {"Authorization": f"Bearer {self.client.key}"}
        return Target(f"{self.client.url}/v1/models/{self.model['id']}/predict?{asked}", headers)


@contextmanager
def served(given: Any) -> Iterator[Served]:
    """Serve as `--data --backbone --size --epochs --warm` (seconds of load before the engine is chosen) say."""
    if given.engines == REFERENCE:  # a service that has no choice measures nothing
        raise SystemExit(f"--engines {REFERENCE} leaves nothing to choose; bench.serve_http has --engine for that")
    with tempfile.TemporaryDirectory() as scratch:
        folder = image_folder(given.data, Path(scratch))
        samples, _ = read_image_folder(folder)
        images = [sample.path.read_bytes() for sample in samples if sample.split == "val"]
        home = Path(scratch) / "home"
        with own_service(home, GRAFT_ENGINES=given.engines) as client:
            model = _trained(client, folder, given, images)
            sha256 = model["artefact_sha256"]
            classifier = load_model(home / "blobs" / sha256[:2] / sha256)
            service = Served(client, home, model, images, classifier)
            note(f"the service chose {service.engine}")
            service.use_engine(model["serving"]["engine"])
            yield service


def _trained(client: Client, folder: Path, given: Any, images: list[bytes]) -> dict[str, Any]:
    with as_archive(folder) as archive, archive.open("rb") as file:
        created = client.upload("/v1/datasets", file, archive.stat().st_size, {"name": "bench"})
    watch_dataset(client, created["id"])
    asked = {"dataset": "bench", "backbone": given.backbone, "input_size": given.size, "epochs": given.epochs}
    job = client.post("/v1/jobs", asked)
    model = str(watch_job(client, job["id"])["result"]["model_id"])
    client.post(f"/v1/models/{model}:pin")
    target = Target(f"{client.url}/v1/models/{model}/predict?top_k=1", {"Authorization": f"Bearer {client.key}"})
    while True:
        found: dict[str, Any] = client.get(f"/v1/models/{model}")
        # What was measured is written down before the engine takes over.
        if found["engines"] and found["serving"]["engine"] == found["engines"][0]["chosen"]:
            return found
        if not found["engines"]:
            closed_loop(target, images, given.warm, 8)  # until it has answered enough to be worth measuring
        time.sleep(1)


Prepare = Callable[[bytes], "NDArray[np.uint8]"]


def in_process(
    classifier: TrainedModel, images: list[bytes], seconds: float, batch: int, prepare: Prepare | None = None
) -> tuple[float, dict[int, str]]:
    """Return the rate of decoding with a thread a core, then classifying, batch after batch; and the labels."""
    prepare = prepare or classifier.prepare
    labels: dict[int, str] = {}
    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while time.perf_counter() - began < seconds:
            numbers = [(done + offset) % len(images) for offset in range(batch)]
            prepared = np.stack(list(pool.map(lambda number: prepare(images[number]), numbers)))
            for number, row in zip(numbers, classifier.answer(prepared), strict=True):
                labels[number] = classifier.classes[int(row.probabilities.argmax())]
            done += batch
    return done / (time.perf_counter() - began), labels


def same_labels(ours: dict[int, str], theirs: dict[int, str]) -> float | None:
    """Return the share of the images that both have answered and labelled alike; None where there are none."""
    both = ours.keys() & theirs.keys()
    return round(sum(ours[number] == theirs[number] for number in both) / len(both), 4) if both else None


def serving_arguments(parser: Any) -> Any:
    """Add the options that every benchmark with a service has, and return the parser."""
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10, help="of the training that makes the model")
    parser.add_argument("--engines", default="auto", help="that the service may choose from, as GRAFT_ENGINES has them")
    parser.add_argument("--warm", type=float, default=15.0, help="seconds of load before the engine is chosen")
    return parser
