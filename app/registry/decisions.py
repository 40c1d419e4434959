"""Choose thresholds for another target precision of a trained model, from its answers for held-out images."""

import json
from typing import Any

from app.core.errors import Conflict
from app.registry.orm import Model
from app.storage import BlobStore
from app.vision.tasks import part_of_task


def decisions_for(store: BlobStore, model: Model, target: float) -> dict[str, Any]:
    """Return the `decisions` that a training with this target precision would have given the model.

    Reads the model's tables, which may be large, and writes nothing. Raises `Conflict` for a model without tables.
    """
    selective = part_of_task("selective_prediction")
    splits = {}
    for split in ("val", "test"):
        if (blob := model.files.get(f"evaluations-{split}.jsonl")) is not None:
            with store.open(blob["sha256"]) as file:
                splits[split] = selective.LabelledAnswers.from_rows(map(json.loads, file), model.classes)
    if "val" not in splits:
        raise Conflict(
            f"Model {model.id} has no evaluation tables to choose thresholds from, because it is older than them. "
            "Train it again with target_precision.",
            code="no_evaluations",
        )
    decisions: dict[str, Any] = selective.selective_prediction(splits, model.classes, target)
    return decisions
