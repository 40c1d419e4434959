"""What tests and benchmarks read of a trained classifier's answers, as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.vision.artefacts.model_file import save_model
from app.vision.engines.model import TrainedModel
from app.vision.networks.network import Network
from app.vision.settings.config import TrainConfig
from app.vision.tasks.classify.answers import ClassAnswers
from app.vision.tasks.classify.task import model_document


def answers_of(model: TrainedModel) -> ClassAnswers:
    """Return what makes the answers of a classifier."""
    assert isinstance(model.answers, ClassAnswers)
    return model.answers


def probabilities(model: TrainedModel, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32 [N, C] for prepared images uint8 [N, H, W, 3]."""
    rows = [one.probabilities for one in model.answer(batch)]
    return np.stack(rows) if rows else np.zeros((0, len(model.classes)), dtype=np.float32)


def decisions(model: TrainedModel, batch: NDArray[np.uint8]) -> list[str | None]:
    """Return what the model file's own thresholds decide of prepared images."""
    answers = answers_of(model)
    return [answers.decision(one, answers.thresholds) for one in model.answer(batch)]


def save_classifier(
    path: Path,
    network: Network,
    *,
    config: TrainConfig,
    classes: tuple[str, ...],
    preprocessing: object,
    metrics: object = None,
    temperature: float = 1.0,
) -> None:
    """Write a model file of a network that no run made, without OOD scores."""
    document = model_document(
        config,
        classes=classes,
        preprocessing=preprocessing.to_dict(),  # type: ignore[attr-defined]
        metrics=metrics or {},  # type: ignore[arg-type]
        temperature=temperature,
    )
    save_model(path, network, document, {})
