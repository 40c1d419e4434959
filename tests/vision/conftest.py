"""Generated pictures, observers and small runs that the tests of the learning core share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.vision.data.samples import Sample
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from app.vision.training.result import FitResult
from tests.support.commands import make_folder
from tests.support.pictures import CLASSES, Recorder, make_samples
from tests.support.runs import WEIGHTS, Fit


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """A known number: results are compared bit for bit, and sums depend on how work is cut up."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """24 training, 12 validation and 6 test images of three classes."""
    return make_samples(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten images with no splits."""
    return make_folder(tmp_path_factory.mktemp("flat"), {"": 10})


@pytest.fixture
def run_fit(tmp_path: Path, samples: list[Sample]) -> Fit:
    """`fit` on the shared samples with the bundled weights; keywords are fields of the configuration."""

    def run(
        folder: str = "run", observer: Recorder | None = None, resume: Path | None = None, **fields: Any
    ) -> FitResult:
        config = TrainConfig(**({"backbone": "resnet18-tiny64", "input_size": 32} | fields))
        return fit(
            config,
            samples,
            CLASSES,
            weights=WEIGHTS,
            workdir=tmp_path / folder,
            observer=observer or Recorder(),
            resume=resume,
        )

    return run
