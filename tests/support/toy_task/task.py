"""The toy task: an image's label is its mean brightness, 0 to 255, and the error of an answer is what counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.backbones.catalogue import get_backbone
from app.vision.errors import InvalidData
from app.vision.networks.network import Network, build_network
from app.vision.networks.starting import start
from app.vision.scores.drawing import figure_of
from app.vision.settings.config import TrainConfig
from app.vision.tasks import preparation
from app.vision.tasks.task import Batch, Finished, Inputs, Run, StepLoss, Table, Task
from tests.support.toy_task.answers import BrightnessAnswers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(kw_only=True)
class BrightnessRun(Run):
    """A run that learns brightness; `truth` holds float32 [N, 1] of each split, 0 to 1."""

    truth: Mapping[str, Tensor]
    names: Mapping[str, list[str]]


@dataclass(frozen=True)
class BrightnessValidation:
    """The mean squared and the mean absolute error of an epoch."""

    loss: float
    error: float

    @property
    def record(self) -> dict[str, float]:
        """Return what stands in the epoch's record."""
        return {"val_loss": self.loss, "val_error": self.error}

    def better_than(self, record: Mapping[str, Any]) -> bool:
        """Return whether the mean error is smaller."""
        return self.error < record["val_error"]


class Brightness:
    """Learns how bright images are."""

    name = "mean-brightness"

    def prepare(self, inputs: Inputs) -> BrightnessRun:
        """Return all that there is before the first step."""
        if any(not 0 <= sample.label <= 255 for sample in inputs.samples):
            raise InvalidData("A brightness is a whole number from 0 to 255.")
        network = self._network(inputs.config)
        start(network, inputs.config, inputs.weights, inputs.base, keep_head=False)
        network.to(inputs.device)
        images = preparation.images_of(inputs, preparation.starting_preprocessing(inputs))
        truth = {
            split: torch.from_numpy(labels / 255).float().reshape(-1, 1).to(inputs.device)
            for split, labels in images.labels().items()
        }
        feed = preparation.make_feed(network, images, inputs)
        if inputs.config.train == "head":
            network.head.standardise(feed.spread_features(preparation.SCALING_SAMPLE))
        return BrightnessRun(
            config=inputs.config,
            network=network,
            feed=feed,
            preprocessing=images.preprocessing,
            groups=np.zeros(len(truth["train"]), dtype=np.int64),
            workdir=inputs.workdir,
            observer=inputs.observer,
            progress=inputs.progress,
            identity={"task": self.name, **preparation.identity_of(inputs)},
            counts={"absolute": "train_error"},
            truth=truth,
            names={split: [one.path.name for one in inputs.samples if one.split == split] for split in truth},
        )

    def loss(self, run: BrightnessRun, batch: Batch) -> StepLoss:
        """Return the mean squared error, and the sum of the absolute ones."""
        found = run.feed.outputs(batch.epoch, batch.rows, batch.how)
        truth = run.truth["train"][batch.rows]
        if batch.how is not None:
            truth = torch.lerp(truth[batch.how.partner], truth[: len(found)], batch.how.share)
        return StepLoss((found - truth).square().mean(), ((found - truth).abs().sum(),))

    def validate(self, run: BrightnessRun) -> BrightnessValidation:
        """Return the errors on the validation images."""
        apart = run.feed.split_outputs("val") - run.truth["val"].cpu()
        return BrightnessValidation(float(apart.square().mean()), float(apart.abs().mean()))

    def finish(self, run: BrightnessRun) -> Finished:
        """Return the errors on the held-out images, a row for each, and a picture of both."""
        head = run.network.head
        found = {
            split: run.feed.exactly(split, lambda features: {"brightness": head(features)})["brightness"].numpy()
            for split in run.truth
            if split != "train"
        }
        truth = {split: run.truth[split].cpu().numpy() for split in found}
        metrics = {split: {"mean_error": float(np.abs(found[split] - truth[split]).mean())} for split in found}
        return Finished(
            metrics=metrics,
            document={
                "config": run.config.to_dict(),
                "preprocessing": run.preprocessing.to_dict(),
                "metrics": metrics,
            },
            tensors={"brightness.mean": run.truth["train"].mean().reshape(1)},
            recorded={"classes": []},
            arrays={"brightness": found},
            tables={
                f"brightness-{split}": Table(
                    ("image", "true", "found"), partial(_rows, run.names[split], truth[split], found[split])
                )
                for split in found
            },
            pictures={"brightness.png": partial(_picture, truth["val"], found["val"])},
            summary=[f"{split}: off by {scores['mean_error']:.3f}" for split, scores in metrics.items()],
        )

    def network(self, document: Mapping[str, Any]) -> Network:
        """Return the network of a model file, without its weights."""
        return self._network(TrainConfig.from_dict(document["config"]))

    def answers(self, document: Mapping[str, Any], tensors: dict[str, Tensor]) -> BrightnessAnswers:
        """Return what makes answers, and take its tensor out of `tensors`."""
        return BrightnessAnswers(float(tensors.pop("brightness.mean")))

    def _network(self, config: TrainConfig) -> Network:
        return build_network(get_backbone(config.backbone), 1, config.head, seed=config.seed, name="brightness")


def _rows(names: list[str], truth: NDArray[np.float32], found: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    for name, one, other in zip(names, truth[:, 0], found[:, 0], strict=True):
        yield {"image": name, "true": float(one), "found": float(other)}


def _picture(truth: NDArray[np.float32], found: NDArray[np.float32]) -> Figure:
    figure = figure_of(4, 4)
    figure.subplots().scatter(truth, found)
    return figure


TASK: Task[BrightnessRun] = Brightness()
