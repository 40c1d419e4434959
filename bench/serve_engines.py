"""Compare engines with torch eager in float32 on the same held-out photographs, each at its fastest batch.

The engine that a service would choose here (the fastest that agrees with the reference) is timed in turn with the
reference. All engines answer the same prepared images; agreement and accuracy are printed for each. `profile` tells
what there is to win: the multiplications a second (in 1e9) of either engine and of a product of large float32 matrices,
which is about all that these cores can do, and where the time of the INT8 engine goes, as OpenVINO counts it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.predictions.serving.engine_files import EngineFiles
from app.predictions.serving.engine_making import make_engine
from app.vision.artefacts.model_file import load_model
from app.vision.data.imagefolder import read_image_folder
from app.vision.data.samples import Sample
from app.vision.engines.choice import choose, measure, outputs_of
from app.vision.engines.engine import Engine
from app.vision.engines.model import TrainedModel
from app.vision.engines.names import ENGINES, obstacle
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from bench.arithmetic import matrix_multiplications, multiplications
from bench.inputs import Quiet, image_folder, weights_file
from bench.rounds import alternate, arguments, clock, compared, emit, note, spread

BATCHES = (1, 8, 32)
TARGET = 6.0


def engines(classifier: TrainedModel, calibration: NDArray[np.uint8], folder: Path) -> dict[str, Engine]:
    """Return every engine that this machine can have, the reference first."""
    files, found = EngineFiles(folder, 2**40), {}
    for name in ENGINES:
        if (reason := obstacle(name)) is not None:
            note(reason)
        else:
            found[name] = make_engine(name, classifier, partial(files.get, "bench"), lambda: calibration)
    return found


def prepared(classifier: TrainedModel, samples: list[Sample]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = np.stack([classifier.prepare(sample.path) for sample in samples])
    return images, np.array([sample.label for sample in samples])


def images_per_second(engine: Engine, images: NDArray[np.uint8], batch: int) -> float:
    """Return the rate over all images, the last batch filled up from the start."""
    count = -(-len(images) // batch)
    filled = np.resize(images, (count * batch, *images.shape[1:]))
    seconds = clock(lambda: [engine.outputs(filled[n * batch : (n + 1) * batch]) for n in range(count)])
    return len(filled) / seconds


def layer_shares(path: Path, images: NDArray[np.uint8]) -> dict[str, float]:
    """Return the share of the time that each kind of layer and of its implementation takes."""
    import openvino

    options = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    options["INFERENCE_NUM_THREADS"] = len(os.sched_getaffinity(0))
    request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()
    taken: Counter[str] = Counter()
    for _ in range(5):
        request.infer({0: images})
        for layer in request.profiling_info:
            taken[f"{layer.node_type} {layer.exec_type}"] += layer.real_time.total_seconds()
    return {kind: round(seconds / taken.total(), 3) for kind, seconds in taken.most_common(6)}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=150, help="held-out images that each round classifies")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        samples, classes = read_image_folder(image_folder(given.data, folder))
        config = TrainConfig(backbone=given.backbone, input_size=given.size, epochs=10)
        weights = weights_file(given.backbone, given.weights)
        note("training the model that every engine runs")
        result = fit(config, samples, classes, weights=weights, workdir=folder / "run", observer=Quiet())
        classifier = load_model(result.model_path)
        train = [sample for sample in samples if sample.split == "train"]
        held_out = [sample for sample in samples if sample.split == "val"]
        images, labels = prepared(classifier, held_out)
        calibration, _ = prepared(classifier, train[:: max(1, len(train) // 128)])

        found = engines(classifier, calibration, folder / "engines")
        reference = outputs_of(classifier.reference, images)
        agreement = partial(classifier.answers.agreement, reference=reference, labels=labels)
        measured = [measure(one, images, agreement) for one in found.values()]
        for one in measured:
            note(f"{one.engine}: {one}")
        chosen = choose(measured)

        timed = images[: given.images]
        best: dict[str, int] = {
            name: max(BATCHES, key=lambda batch: images_per_second(found[name], timed, batch))
            for name in {"torch", chosen}
        }
        ours, theirs = alternate(
            lambda _: images_per_second(found[chosen], timed, best[chosen]),
            lambda _: images_per_second(found["torch"], timed, best["torch"]),
            given.rounds,
        )
        ratio: dict[str, Any] = compared(ours, theirs)
        blank = np.zeros((1, *images.shape[1:]), dtype=np.uint8)
        work = multiplications(classifier.network, lambda: classifier.reference.outputs(blank))
        profile: dict[str, Any] = {
            "image": round(work, 2),
            "chosen": round(work * statistics.median(ours)),
            "torch": round(work * statistics.median(theirs)),
            "float32_matrices": round(matrix_multiplications()),
        }
        quantized = folder / "engines" / "bench" / "scored.int8.onnx"
        if quantized.is_file():
            profile["int8_layers"] = layer_shares(quantized, images[: best[chosen]])
        emit(
            "serve_engines",
            **ratio,
            target=TARGET,
            chosen=chosen,
            images_per_second={"chosen": spread(ours, 1), "torch": spread(theirs, 1)},
            batch=best,
            profile=profile,
            engines=[one.to_dict() for one in measured],
            backbone=given.backbone,
            size=given.size,
        )


if __name__ == "__main__":
    main()
