"""Compare the epoch loop's images a second, from the second epoch on, with the bare step on a tensor in memory.

One run trains; between two of its epochs, the same number of steps run on synthetic images that were normalised
beforehand. What the loop loses against them is what reading the pack, augmenting and book-keeping cost. An epoch
counts from the end of one validation to the last step before the next, less the checkpoint written in between.

On a busy machine, `--by step` takes turns after every step instead, which is fair as long as the loop prepares nothing
in the background.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import load_state_dict
from app.vision.data.imagefolder import read_image_folder
from app.vision.networks.network import build_network, load_trunk, set_trainable
from app.vision.runtime.precision import fast_dtype
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.training.fit import fit
from bench.inputs import image_folder, weights_file
from bench.rounds import arguments, clock, compared, device, emit, note, spread

TARGET = 0.95


class Synthetic:
    """Step the same network and optimiser over images that lie ready in memory."""

    def __init__(self, config: TrainConfig, weights: Path, classes: int, images: int, batch: int) -> None:
        backbone = get_backbone(config.backbone)
        self.place = device()
        self.network = build_network(backbone, classes, config.head)
        load_trunk(self.network, backbone, load_state_dict(weights, backbone))
        set_trainable(self.network, config)
        self.network.to(self.place).to(memory_format=torch.channels_last).train()
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=1e-4)
        steps = math.ceil(images / batch)
        size = config.input_size or backbone.input_size
        self.batches = [
            torch.randn(rows, 3, size, size, device=self.place).contiguous(memory_format=torch.channels_last)
            for rows in (images // steps + (step < images % steps) for step in range(steps))
        ]
        self.labels = [torch.randint(classes, (len(batch),), device=self.place) for batch in self.batches]
        self.dtype = fast_dtype(self.place)

    def steps(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            with torch.autocast(self.place.type, dtype=self.dtype, enabled=self.dtype is not None):
                features = self.network.trunk(self.batches[number])
            loss = functional.cross_entropy(self.network.head(features.float()), self.labels[number])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            loss.item()


class Stopwatch:
    """Observe the run: time the loop's steps and, in turn with them, the synthetic ones."""

    def __init__(self, synthetic: Synthetic, by_step: bool) -> None:
        self.synthetic = synthetic
        self.by_step = by_step
        self.loop: list[float] = []
        self.bare: list[float] = []
        self.checkpoints = 0.0
        self._training = False
        self._step = 0
        self._loop_s = self._bare_s = self._checkpoint_s = 0.0
        self._resumed_at = time.perf_counter()

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        self._training = phase == "training"

    def should_stop(self) -> bool:
        if self._training:
            self._loop_s += time.perf_counter() - self._resumed_at
            if self.by_step:
                number = self._step
                self._bare_s += clock(lambda: self.synthetic.steps([number]))
            self._step += 1
            self._resumed_at = time.perf_counter()
        return False

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        # Between epochs, nothing but the checkpoint happens since the observer was left.
        self._checkpoint_s = time.perf_counter() - self._resumed_at
        self.checkpoints += self._checkpoint_s

    def epoch(self, metrics: dict[str, Any]) -> None:
        if not self.by_step:
            self._bare_s = clock(lambda: self.synthetic.steps(range(len(self.synthetic.batches))))
        self.loop.append(self._loop_s - self._checkpoint_s)
        self.bare.append(self._bare_s)
        note(f"epoch {metrics['epoch']}: {self.loop[-1]:.3f} s against {self.bare[-1]:.3f} s")
        self._step = 0
        self._loop_s = self._bare_s = self._checkpoint_s = 0.0
        self._resumed_at = time.perf_counter()


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of this benchmark's options."""
    parser = arguments(__doc__)
    parser.add_argument("--train", choices=("last_stages", "all"), default="all")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--augmentation", default="light")
    parser.add_argument("--by", choices=("epoch", "step"), default="epoch", help="what the two sides take turns after")
    return parser


def configuration(options: argparse.Namespace, seed: int) -> TrainConfig:
    """Return the training that is timed; its first epoch is for warming up."""
    return TrainConfig(
        options.backbone,
        train=options.train,
        head=HeadConfig(),
        epochs=options.rounds + 1,
        batch_size=options.batch,
        augmentation=options.augmentation,
        input_size=options.size,
        seed=seed,
    )


def main() -> None:
    options = options_parser().parse_args()
    weights = weights_file(options.backbone, options.weights)
    config = configuration(options, 0)
    with tempfile.TemporaryDirectory() as scratch:
        samples, classes = read_image_folder(image_folder(options.data, Path(scratch)))
        images = sum(sample.split == "train" for sample in samples)
        watch = Stopwatch(Synthetic(config, weights, len(classes), images, options.batch), options.by == "step")
        fit(config, samples, classes, weights=weights, workdir=Path(scratch) / "work", observer=watch)
    loop = [images / seconds for seconds in watch.loop[1:]]
    bare = [images / seconds for seconds in watch.bare[1:]]
    figures = compared(loop, bare)
    emit(
        "epoch_loop",
        **figures,
        target=TARGET,
        met=figures["ratio"] >= TARGET,
        loop_images_per_s=spread(loop, 1),
        synthetic_images_per_s=spread(bare, 1),
        checkpoints_s=round(watch.checkpoints, 3),
        turns_by=options.by,
        train=options.train,
        augmentation=options.augmentation,
        batch=options.batch,
        backbone=options.backbone,
        input_size=options.size,
        images=images,
        rounds=options.rounds,
    )


if __name__ == "__main__":
    main()
