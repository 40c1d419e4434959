"""Classification is a task: this says how a classifier is prepared, learns, is validated and is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.vision.backbones.catalogue import get_backbone
from app.vision.data.samples import Sample
from app.vision.networks.network import Network, build_network
from app.vision.scores.calibration import fit_temperature
from app.vision.settings.config import TrainConfig
from app.vision.tasks import preparation
from app.vision.tasks.classify.answers import OOD_TENSORS, ClassAnswers, to_probabilities
from app.vision.tasks.classify.checks import check_samples
from app.vision.tasks.classify.divergence import hopeless
from app.vision.tasks.classify.evaluation import ClassValidation, assess, validated
from app.vision.tasks.classify.head import starting_network
from app.vision.tasks.classify.held_out import HeldOut, look_at_held_out
from app.vision.tasks.classify.losses import Loss, batch_loss, make_loss
from app.vision.tasks.classify.pictures import draw_pictures
from app.vision.tasks.classify.selective_prediction import (
    LabelledAnswers,
    notes_on_thresholds,
    selective_prediction,
)
from app.vision.tasks.classify.summary import summary_lines
from app.vision.tasks.classify.tables import COLUMNS, image_rows
from app.vision.tasks.task import Batch, Finished, Inputs, Run, StepLoss, Table, Task

RECORDED = ("samples", "accuracy", "log_loss", "macro_f1")  # of the metrics, in the model file


@dataclass(kw_only=True)
class ClassifyRun(Run):
    """Is a run that learns classes; `labels` holds int [N] for each split, in the order of the samples."""

    labels: Mapping[str, NDArray[np.int64]]
    loss: Loss
    samples: Sequence[Sample]
    classes: Sequence[str]


class Classify:
    """Learns which one of some classes an image belongs to."""

    name = "classify"

    def prepare(self, inputs: Inputs) -> ClassifyRun:
        """Return all that there is before the first step; see `Task.prepare`."""
        check_samples(inputs.samples, inputs.classes)
        config, classes = inputs.config, len(inputs.classes)
        network, keep_head = starting_network(inputs)
        images = preparation.images_of(inputs, preparation.starting_preprocessing(inputs))
        labels = images.labels()
        preparation.check_shares(config, len(labels["train"]))
        feed = preparation.make_feed(network, images, inputs)
        if not keep_head and config.train == "head":
            # Not where the trunk learns: dividing by small spreads would magnify its gradients, and SGD would diverge.
            network.head.standardise(feed.spread_features(preparation.SCALING_SAMPLE))
        return ClassifyRun(
            config=config,
            network=network,
            feed=feed,
            preprocessing=images.preprocessing,
            groups=labels["train"],
            workdir=inputs.workdir,
            observer=inputs.observer,
            progress=inputs.progress,
            identity=preparation.identity_of(inputs),
            counts={"correct": "train_accuracy"},
            hopeless=partial(_hopeless, classes),
            labels=labels,
            loss=make_loss(config, labels["train"], classes, inputs.device),
            samples=inputs.samples,
            classes=inputs.classes,
        )

    def loss(self, run: ClassifyRun, batch: Batch) -> StepLoss:
        """Return the mean loss of a batch in nats, and how many of its samples are right."""
        logits = run.feed.outputs(batch.epoch, batch.rows, batch.how)
        loss, right = batch_loss(run.loss, logits, run.labels["train"][batch.rows], batch.how)
        return StepLoss(loss, (right,))

    def validate(self, run: ClassifyRun) -> ClassValidation:
        """Return accuracy, loss and F1 on the validation images."""
        return validated(to_probabilities(run.feed.split_outputs("val")), run.labels["val"])

    def finish(self, run: ClassifyRun) -> Finished:
        """Return what is measured on the held-out images, and what the model file holds."""
        found = look_at_held_out(run.network.head, run.feed, run.labels)
        temperature = fit_temperature(found.logits["val"], run.labels["val"])
        probabilities = {split: to_probabilities(logits, temperature) for split, logits in found.logits.items()}
        samples = {split: [sample for sample in run.samples if sample.split == split] for split in probabilities}
        metrics = {
            split: assess(
                rows,
                to_probabilities(found.logits[split]),
                run.labels[split],
                run.classes,
                [sample.path.name for sample in samples[split]],
                temperature,
                found.ood_scores.get(split),
            )
            for split, rows in probabilities.items()
        }
        decisions = _decisions(run, probabilities, found)
        history, best_epoch = run.history, run.best_epoch
        return Finished(
            metrics=metrics,
            document=model_document(
                run.config,
                classes=run.classes,
                preprocessing=run.preprocessing.to_dict(),
                temperature=temperature,
                metrics={split: {key: scores[key] for key in RECORDED} for split, scores in metrics.items()},
                ood_limit=found.ood.limit if found.ood else None,
                decisions=decisions,
            ),
            tensors=ood_tensors(found),
            recorded={"classes": list(run.classes), "decisions": decisions},
            arrays={"probabilities": probabilities, "ood_score": found.ood_scores},
            tables={
                f"evaluations-{split}": Table(
                    COLUMNS, partial(image_rows, samples[split], rows, found.ood_scores.get(split), run.classes)
                )
                for split, rows in probabilities.items()
            },
            pictures=draw_pictures(history, best_epoch, metrics, probabilities, run.labels, run.classes, decisions),
            notes=notes_on_thresholds(decisions) if decisions else [],
            summary=list(summary_lines(metrics, decisions)),
        )

    def network(self, document: Mapping[str, Any]) -> Network:
        """Return the network of a model file, without its weights."""
        config = TrainConfig.from_dict(document["config"])
        return build_network(get_backbone(config.backbone), len(document["classes"]), config.head)

    def answers(self, document: Mapping[str, Any], tensors: dict[str, Tensor]) -> ClassAnswers:
        """Return what makes answers of the network's outputs, and take its tensors out of `tensors`."""
        return ClassAnswers.from_document(document, tensors)


def model_document(
    config: TrainConfig,
    *,
    classes: Sequence[str],
    preprocessing: Mapping[str, Any],
    metrics: Mapping[str, Any],
    temperature: float = 1.0,
    ood_limit: float | None = None,
    decisions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a model file says of itself. Its order is part of the file's bytes, and so of its hash."""
    return {
        "backbone": config.backbone,
        "head": config.to_dict()["head"],
        "classes": list(classes),
        "preprocessing": preprocessing,
        "temperature": temperature,
        "config": config.to_dict(),
        "metrics": metrics,
        "novelty": None if ood_limit is None else {"limit": ood_limit},
        "decisions": decisions,
    }


def ood_tensors(found: HeldOut) -> dict[str, Tensor]:
    """Return the statistics behind the OOD scores by their names in a model file; none where there are no scores."""
    return {OOD_TENSORS + name: tensor for name, tensor in found.ood.tensors().items()} if found.ood else {}


def _decisions(
    run: ClassifyRun, probabilities: Mapping[str, NDArray[np.float32]], found: HeldOut
) -> dict[str, Any] | None:
    if run.config.target_precision is None:
        return None
    answers = {
        split: LabelledAnswers.from_probabilities(rows, run.labels[split], found.ood_scores.get(split))
        for split, rows in probabilities.items()
    }
    return selective_prediction(answers, run.classes, run.config.target_precision)


def _hopeless(classes: int, watched: dict[str, float], loss: float, counts: Sequence[float]) -> str | None:
    return hopeless(watched, loss, counts[0], classes)


TASK: Task[ClassifyRun] = Classify()
