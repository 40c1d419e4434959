"""Throughput over HTTP, a real service and a real client process, against a loop in this process with the same engine.

The loop decodes and prepares the same JPEGs with as many threads as cores and classifies them at its best batch.
`counting_client` is the plain ratio; `without_client` grants the service the processor time that the client took.
Latency is that of one connection, against decoding and classifying one image in this process.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.cli.client import Client
from app.cli.demo import own_service
from app.cli.pack import as_archive
from app.cli.show import watch_dataset, watch_job
from app.vision.artefact import load_model
from app.vision.classifier import Classifier
from app.vision.engines import TorchBfloat16
from app.vision.imagefolder import read_image_folder
from app.vision.onnx_engines import OnnxRuntime, OpenVino
from bench.inputs import image_folder
from bench.rounds import alternate, arguments, compared, emit, note, spread

TARGET = 0.85


def ask(url: str, key: str, model: str, images: list[bytes], seconds: float, connections: int, out: Any) -> None:
    """The client process: each connection sends one image after another; tells answers, seconds, CPU, latencies."""
    address = urlsplit(url)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "image/jpeg"}
    latencies: list[float] = []
    labels: dict[int, str] = {}

    def connection(first: int) -> None:
        link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
        number = first
        while time.perf_counter() < ends:
            sent = time.perf_counter()
            link.request("POST", f"/v1/models/{model}/predict?top_k=1", images[number % len(images)], headers)
            answer = json.loads(link.getresponse().read())
            latencies.append(time.perf_counter() - sent)
            labels[number % len(images)] = answer["items"][0]["predictions"][0]["label"]
            number += connections

    began = time.perf_counter()
    ends = began + seconds
    threads = [threading.Thread(target=connection, args=(first,)) for first in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    out.put((len(latencies), time.perf_counter() - began, used.ru_utime + used.ru_stime, latencies, labels))


def over_http(*given: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=ask, args=(*given, answers))
    process.start()
    found = answers.get()
    process.join()
    return found


def in_process(classifier: Classifier, images: list[bytes], seconds: float, batch: int) -> tuple[float, dict[int, str]]:
    """Images a second of decoding in parallel, then classifying, batch after batch."""
    import numpy as np

    labels: dict[int, str] = {}
    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while time.perf_counter() - began < seconds:
            numbers = [(done + offset) % len(images) for offset in range(batch)]
            prepared = np.stack(list(pool.map(lambda number: classifier.prepare(images[number]), numbers)))
            for number, row in zip(numbers, classifier.predict(prepared), strict=True):
                labels[number] = classifier.classes[int(row.argmax())]
            done += batch
    return done / (time.perf_counter() - began), labels


def same_engine(classifier: Classifier, name: str, files: Path) -> None:
    """Let `classifier` use the engine that the service chose, from the service's own file."""
    threads = len(os.sched_getaffinity(0))
    if name == "torch-bf16":
        classifier.engine = TorchBfloat16(classifier.network, classifier.preprocessing)
    elif name == "onnxruntime":
        classifier.engine = OnnxRuntime(files / "float32.onnx", threads)
    elif name != "torch":
        file = files / ("int8.onnx" if name == "openvino-int8" else "float32.onnx")
        classifier.engine = OpenVino(name, file, threads, precision="bf16" if name == "openvino-bf16" else "f32")


def trained(client: Client, folder: Path, backbone: str, size: int, images: list[bytes]) -> dict[str, Any]:
    """The model, once the service has chosen its engine."""
    with as_archive(folder) as archive, archive.open("rb") as file:
        created = client.upload("/v1/datasets", file, archive.stat().st_size, {"name": "bench"})
    watch_dataset(client, created["id"])
    job = client.post("/v1/jobs", {"dataset": "bench", "backbone": backbone, "input_size": size, "epochs": 10})
    model = str(watch_job(client, job["id"])["result"]["model_id"])
    client.post(f"/v1/models/{model}:pin")
    over_http(client.url, client.key, model, images, 15.0, 8)
    while not (found := client.get(f"/v1/models/{model}"))["engines"]:
        time.sleep(1)
    time.sleep(2)
    known: dict[str, Any] = client.get(f"/v1/models/{found['id']}")
    return known


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = image_folder(given.data, Path(scratch))
        samples, _ = read_image_folder(folder)
        images = [sample.path.read_bytes() for sample in samples if sample.split == "val"]
        home = Path(scratch) / "home"
        with own_service(home) as client:
            model = trained(client, folder, given.backbone, given.size, images)
            engine, sha256 = model["serving"]["engine"], model["artefact_sha256"]
            note(f"the service chose {engine}")
            classifier = load_model(home / "blobs" / sha256[:2] / sha256[2:4] / sha256)
            same_engine(classifier, engine, home / "engines" / sha256)
            best = max((1, 8, 32), key=lambda batch: in_process(classifier, images, 2.0, batch)[0])
            rounds: list[Any] = []
            loops: list[dict[int, str]] = []

            def http_round(_: int) -> float:
                answers = over_http(client.url, client.key, model["id"], images, given.seconds, given.connections)
                rounds.append(answers)
                return float(answers[0] / answers[1])

            def loop_round(_: int) -> float:
                rate, labels = in_process(classifier, images, given.seconds, best)
                loops.append(labels)
                return rate

            ours, theirs = alternate(http_round, loop_round, given.rounds)
            cores = len(os.sched_getaffinity(0))
            freed = [rate / (1 - one[2] / (one[1] * cores)) for rate, one in zip(ours, rounds, strict=True)]
            alone = over_http(client.url, client.key, model["id"], images, given.seconds, 1)[3]
            single = [in_process(classifier, images, 1.0, 1)[0] for _ in range(given.rounds)]
    answered = {number: label for one in rounds for number, label in one[4].items()}
    expected = {number: label for labels in loops for number, label in labels.items()}
    both = answered.keys() & expected.keys()
    emit(
        "serve_http",
        **compared(ours, theirs),
        target=TARGET,
        without_client=compared(freed, theirs),
        images_per_second={"http": spread(ours, 1), "loop": spread(theirs, 1)},
        same_labels=sum(answered[number] == expected[number] for number in both) / len(both),
        single_ms={
            "http": round(1000 * statistics.median(alone), 2),
            "loop": round(1000 / statistics.median(single), 2),
        },
        engine=engine,
        engines=model["engines"][0]["measured"],
        batch=best,
        connections=given.connections,
        backbone=given.backbone,
        size=given.size,
    )


if __name__ == "__main__":
    main()
