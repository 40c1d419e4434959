"""The command `predict MODEL IMAGE...` prints what a trained model says of images."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from app.vision.command.terminal import FAILED, fail, say
from app.vision.errors import InvalidData


@dataclass(frozen=True, slots=True)
class Asked:
    """Says what the command asks of every answer."""

    top_k: int
    threshold: float = 0.0
    classes: tuple[str, ...] = ()
    probabilities: str = "top"


def model_file(path: Path) -> Path:
    """Return the file, where the folder it lies in is given."""
    return path / "model.safetensors" if path.is_dir() else path


def predict(options: argparse.Namespace) -> int:
    """Print a line for each image, and return the exit code."""
    from app.vision.artefacts.model_file import load_model

    model = load_model(model_file(options.model))
    asked = Asked(max(1, options.top_k))
    failures = 0
    for image in options.images:
        try:
            (answer,) = model.answer(model.prepare(image)[None])
        except InvalidData as error:
            failures += 1
            fail(str(error), FAILED)
            continue
        said = model.answers.describe(answer, asked, model.answers.thresholds)
        say(model.answers.line(said, str(image)) if options.json else f"{image}  {model.answers.text(said)}")
    return FAILED if failures else 0
