"""Ask two hundred models in turn with memory for five: each call loads its model again, and none may fail.

The models are one network under two hundred heads, so that a wrong model shows as a wrong answer. `ratio` is the time
of a call whose model has to be loaded over that of a call whose model is there.
"""

from __future__ import annotations

import itertools
import math
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch

from app.predictions.references import ModelReference
from app.predictions.serving.model_cache import CacheLimits, ModelCache
from app.storage import Blob
from app.storage.filesystem import FilesystemStore
from app.vision.artefacts.model_file import save_model
from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import load_state_dict
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import build_network, load_trunk
from app.vision.settings.config import TrainConfig
from app.vision.tasks.classify.task import model_document
from bench.inputs import CLASSES, weights_file
from bench.rounds import arguments, clock, compared, emit, note, spread

BUDGET = 5  # models


def write_models(store: FilesystemStore, scratch: Path, count: int, backbone_name: str, weights: Path) -> list[Blob]:
    """Write models of which number n favours the first class by n / 100 in its logit, and knows nothing else."""
    backbone = get_backbone(backbone_name)
    config = TrainConfig(backbone=backbone_name)
    preprocessing = Preprocessing.for_backbone(backbone, backbone.input_size)
    network = build_network(backbone, len(CLASSES), config.head)
    load_trunk(network, backbone, load_state_dict(weights, backbone))
    written = []
    for number in range(count):
        with torch.no_grad():
            network.head.layers[-1].bias.copy_(torch.tensor([number / 100, 0.0]))
        path = scratch / f"{number}.safetensors"
        about = model_document(config, classes=CLASSES, preprocessing=preprocessing.to_dict(), metrics={})
        save_model(path, network, about, {})
        written.append(store.put_file(path, move=True))
    return written


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--callers", type=int, default=4, help="who ask at the same time")
    given = parser.parse_args()
    side = get_backbone(given.backbone).input_size
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        store = FilesystemStore(scratch / "blobs")
        note(f"writing {given.models} models")
        blobs = write_models(store, scratch, given.models, given.backbone, weights_file(given.backbone, given.weights))
        models = [ModelReference(uuid4(), blob.sha256, blob.size) for blob in blobs]
        limits = CacheLimits(budget_bytes=BUDGET * max(blob.size for blob in blobs))
        cache = ModelCache(store, limits, scratch=scratch / "loading")
        failures: list[str] = []
        most_loaded = 0

        def call(number: int) -> float:
            nonlocal most_loaded

            def work() -> None:
                with cache.lease(models[number]) as loading:
                    (answer,) = [future.result(60) for future in loading.result(60).submit([image])]
                probability = float(answer.probabilities[0])
                expected = 1 / (1 + math.exp(-number / 100))
                if abs(probability - expected) > 1e-4:
                    failures.append(f"model {number} answers {probability:.4f}, not {expected:.4f}")

            try:
                seconds = clock(work)
            except Exception as error:
                failures.append(f"model {number}: {error!r}")
                return math.nan
            most_loaded = max(most_loaded, sum(cache.serving(one).state == "ready" for one in models))
            return seconds

        loaded, there, calls = [], [], 0
        try:
            for turn in range(given.rounds):
                with ThreadPoolExecutor(given.callers) as callers:
                    times = list(callers.map(call, range(given.models)))
                loaded.append(statistics.median(times))
                there.append(statistics.median([call(given.models - 1) for _ in range(20)]))
                calls += len(times) + 20
                note(f"round {turn + 1}/{given.rounds}: {calls} calls, {len(failures)} failures")
        finally:
            cache.close()
    emit(
        "serve_many_models",
        **compared(loaded, there),
        target="no failure",
        met=not failures,
        calls=calls,
        failures=list(itertools.islice(failures, 5)),
        failed=len(failures),
        models=given.models,
        budget_models=BUDGET,
        most_loaded=most_loaded,
        call_ms={
            "loading": spread([1000 * one for one in loaded]),
            "loaded": spread([1000 * one for one in there]),
        },
        backbone=given.backbone,
        size=side,
    )


if __name__ == "__main__":
    main()
