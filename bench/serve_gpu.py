"""Compare images a second over HTTP, 32 a request, on a GPU, with the same network compiled in bfloat16 here.

The loop in this process decodes and prepares the same JPEGs with a thread a core and classifies them 32 at a time, or
128 where that is faster. `of_model` is the ratio to the compiled network alone, whose images lie ready in memory.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from app.vision.engines.engine import fold_batch_norms
from app.vision.engines.model import TrainedModel
from app.vision.engines.names import obstacle
from app.vision.networks.outputs import Outputs, as_arrays
from bench.load import Answers, closed_loop
from bench.rounds import alternate, arguments, clock, compared, emit, note, spread
from bench.served import in_process, same_labels, served, serving_arguments

TARGET = 0.80
REQUEST = 32  # images
GROUPS = 16  # requests that differ
ENGINE = "cuda-bf16"


class Compiled:
    """Run the trunk in bfloat16 with folded batch norms, as torch.compile makes it for the GPU."""

    name = "compiled-bf16"
    nbytes = 0
    batch = REQUEST

    def __init__(self, classifier: TrainedModel) -> None:
        network = copy.deepcopy(classifier.network).requires_grad_(False).eval()
        fold_batch_norms(network.trunk)
        network.trunk.to(torch.bfloat16)
        network.to("cuda").to(memory_format=torch.channels_last)
        normalize = classifier.preprocessing.normalize
        self._scored = torch.compile(lambda pixels: network.outputs(normalize(pixels).bfloat16()))

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            return as_arrays(self._scored(torch.from_numpy(batch).to("cuda")))


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of this benchmark's options."""
    parser: argparse.ArgumentParser = serving_arguments(arguments(__doc__))
    parser.set_defaults(engines=ENGINE, connections=8)
    return parser


def main() -> None:
    given = options_parser().parse_args()
    if (reason := obstacle(ENGINE)) is not None:
        raise SystemExit(reason)
    with served(given) as service:
        classifier, images = service.classifier, service.images
        groups = [[images[(first * 7 + offset) % len(images)] for offset in range(REQUEST)] for first in range(GROUPS)]
        label = ("items", None, "predictions", 0, "label")
        target = replace(service.target(engine=ENGINE), form="file", label=label)
        classifier.engine = Compiled(classifier)
        ready = np.stack([classifier.prepare(images[number % len(images)]) for number in range(REQUEST)])
        for size in (REQUEST, 1):  # compiled for both, outside the clock
            classifier.answer(ready[:size])
        best = max(
            (REQUEST, 4 * REQUEST), key=lambda batch: in_process(classifier, images, given.seconds / 5, batch)[0]
        )
        note(f"the loop is the fastest with batches of {best}")
        rounds: list[Answers] = []
        expected: dict[int, str] = {}
        alone: list[float] = []

        def http_round(_: int) -> float:
            rounds.append(closed_loop(target, groups, given.seconds, given.connections))
            assert not rounds[-1].failed, rounds[-1].failed[0]
            assert not rounds[-1].refused, "the service had too many callers"
            return rounds[-1].rate * REQUEST

        def loop_round(_: int) -> float:
            alone.append(200 * REQUEST / clock(lambda: [classifier.engine.outputs(ready) for _ in range(200)]))
            rate, labels = in_process(classifier, images, given.seconds, best)
            expected.update(labels)
            return rate

        ours, theirs = alternate(http_round, loop_round, given.rounds)
    answered = {
        (first * 7 + offset) % len(images): label
        for one in rounds
        for first, labels in one.labels.items()
        for offset, label in enumerate(labels.split(","))
    }
    figures = compared(ours, theirs)
    emit(
        "serve_gpu",
        **figures,
        target=TARGET,
        met=figures["ratio"] >= TARGET,
        of_model=compared(ours, alone)["ratio"],
        images_per_second={"http": spread(ours, 1), "loop": spread(theirs, 1), "model": spread(alone, 1)},
        same_labels=same_labels(answered, expected),
        engine=ENGINE,
        batch=best,
        connections=given.connections,
        backbone=given.backbone,
        size=given.size,
    )


if __name__ == "__main__":
    main()
