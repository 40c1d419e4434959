"""The command `predict MODEL IMAGE...`: classify images with a trained model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from app.vision.command.terminal import FAILED, fail, say
from app.vision.errors import InvalidData


def model_file(path: Path) -> Path:
    """Return the model's file, where its folder may be given in its place."""
    return path / "model.safetensors" if path.is_dir() else path


def predict(options: argparse.Namespace) -> int:
    from app.vision.artefacts.model_file import load_model
    from app.vision.tasks.classify.selective_prediction import judge

    model = load_model(model_file(options.model))
    failures = 0
    for image in options.images:
        try:
            row = model.answer(model.prepare(image)[None])[0]
        except InvalidData as error:
            failures += 1
            fail(str(error), FAILED)
            continue
        decision, score = judge(row, len(model.classes), model.thresholds)
        probabilities = row[: len(model.classes)]
        best = probabilities.argsort()[::-1][: max(1, options.top_k)]
        answers = [{"class": model.classes[label], "probability": float(probabilities[label])} for label in best]
        if options.json:
            say(json.dumps({"image": str(image), "decision": decision, "ood_score": score, "predictions": answers}))
        else:
            said = ", ".join(f"{answer['class']} {answer['probability']:.4f}" for answer in answers)
            say(f"{image}  {said}" + (f"  {decision}" if decision else ""))
    return FAILED if failures else 0
