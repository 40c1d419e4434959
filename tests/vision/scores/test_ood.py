"""Distances against their definition, limits against fresh draws of the same kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from app.vision.artefacts.model_file import load_model
from app.vision.data.samples import Sample
from app.vision.scores import ood as module
from app.vision.scores.ood import LEAST_IMAGES, OodScorer, expected_unknown, fit_ood, sample_rows
from app.vision.training.fit import fit
from tests.support.classify import answers_of, probabilities, save_classifier
from tests.support.pictures import CLASSES, Recorder, make_samples
from tests.support.runs import WEIGHTS, Fit


def features(count: int, size: int, seed: int) -> tuple[Tensor, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Three classes of unlike means under one covariance that is far from a sphere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    spread = torch.logspace(1, -2, size)
    mixed = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(99)))[0]
    noise = torch.randn(count, size, generator=generator) * spread @ mixed.T
    means = 3 * torch.randn(3, size, generator=torch.Generator().manual_seed(98))
    return means[labels] + noise, labels.numpy()


def by_definition(points: Tensor, labels: np.ndarray[tuple[int], np.dtype[np.int64]], others: Tensor) -> Tensor:
    """Mahalanobis's distance under Ledoit and Wolf's covariance, with every matrix written out."""
    points, others, truth = points.double(), others.double(), torch.from_numpy(labels)
    means = torch.stack([points[truth == label].mean(dim=0) for label in range(3)])
    within = points - means[truth]
    count, size = within.shape
    covariance = within.T @ within / count
    mean = covariance.trace() / size
    target = mean * torch.eye(size, dtype=torch.float64)
    apart = ((covariance - target) ** 2).sum()
    noise = sum((((one[:, None] * one) - covariance) ** 2).sum() for one in within) / count**2
    share = min(1.0, float(noise / apart))
    inverse = torch.linalg.inv((1 - share) * covariance + share * target)
    differences = others[:, None] - means
    return torch.einsum("ncf,fg,ncg->nc", differences, inverse, differences).amin(dim=1).sqrt()


@pytest.mark.parametrize(("count", "size"), [(300, 20), (60, 20), (24, 60), (40, 40)])
def test_distances_are_mahalanobiss(count: int, size: int) -> None:
    points, labels = features(count, size, 0)
    others = torch.cat([features(30, size, 1)[0], torch.randn(10, size) * 20])
    found = fit_ood(points, labels).distances(others)
    torch.testing.assert_close(found.double(), by_definition(points, labels, others), rtol=1e-3, atol=1e-3)


def test_directions_that_are_not_told_apart_share_their_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = features(300, 40, 0)
    exact = fit_ood(points, labels)
    monkeypatch.setattr(module, "DIRECTIONS", 12)
    fewer = fit_ood(points, labels)
    assert fewer.directions.shape == (40, 12)
    others = features(200, 40, 1)[0]
    unlike = torch.randn(50, 40, generator=torch.Generator().manual_seed(5)) * 20
    for one in (exact, fewer):
        assert one.distances(unlike).min() > one.distances(others).max()


def test_the_limit_leaves_out_the_share_it_should() -> None:
    """Over many limits, each set on so few images, fresh images of the same kind are unknown as often as is said."""
    points, labels = features(600, 20, 0)
    plain = fit_ood(points, labels)
    for held_out in (LEAST_IMAGES, 60, 400):
        unknown = []
        for seed in range(60):
            found = plain.limited(plain.distances(features(held_out, 20, 100 + seed)[0]).numpy())
            unknown.append(float((found.scores(features(500, 20, 900 + seed)[0]) > 1).float().mean()))
        expected = expected_unknown(held_out)
        assert 0.0 < expected <= 0.05 + 1e-9
        error = np.std(unknown) / np.sqrt(len(unknown))
        assert abs(np.mean(unknown) - expected) < 4 * error
    assert expected_unknown(10_000) == pytest.approx(1 - module.KNOWN_SHARE, abs=1e-3)
    assert expected_unknown(LEAST_IMAGES) == pytest.approx(1 - module.KNOWN_SHARE)


def test_statistics_are_taken_from_all_classes_evenly() -> None:
    labels = np.array([0] * 5000 + [1] * 3 + [2] * 5000)
    rows = sample_rows(labels)
    assert list(np.bincount(labels[rows])) == [module.SAMPLE // 3, 3, module.SAMPLE // 3]
    assert (np.diff(rows) > 0).all()
    assert rows[labels[rows] == 0].max() == 4999


@pytest.fixture(scope="module")
def enough(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """24 training, 30 validation and 12 test images of three classes."""
    return make_samples(tmp_path_factory.mktemp("enough"), 8, 10, 4)


@pytest.mark.parametrize("train", ["head", "last_stages"])
def test_a_model_answers_with_the_scores_it_was_measured_with(enough: list[Sample], tmp_path: Path, train: str) -> None:
    from app.vision.settings.config import TrainConfig

    config = TrainConfig("resnet18-tiny64", input_size=32, epochs=2, batch_size=8, train=train)  # type: ignore[arg-type]
    result = fit(config, enough, CLASSES, weights=WEIGHTS, workdir=tmp_path / "run", observer=Recorder())
    classifier = load_model(result.model_path)
    for split in ("val", "test"):
        images = np.stack([classifier.prepare(one.path) for one in enough if one.split == split])
        answered = probabilities(classifier, images)
        measured = result.finished.arrays["ood_score"][split]
        np.testing.assert_allclose([one.ood_score for one in classifier.answer(images)], measured, rtol=1e-4)
        np.testing.assert_allclose(answered, result.finished.arrays["probabilities"][split], atol=1e-5)
        assert result.metrics[split]["unknown"] == float((measured > 1).mean())
    assert result.finished.arrays["ood_score"]["val"].max() == 1.0  # of thirty images, the farthest is the limit
    assert classifier.answer(images[:0]) == []
    assert classifier.nbytes - classifier.reference.nbytes == classifier.answers.nbytes > 0

    # A file from before there was such a thing answers as ever.
    old = tmp_path / "old.safetensors"
    save_classifier(
        old,
        classifier.network,
        config=config.resolve(),
        classes=CLASSES,
        preprocessing=classifier.preprocessing,
        temperature=answers_of(classifier).temperature,
    )
    np.testing.assert_array_equal(probabilities(load_model(old), images), answered)
    assert {one.ood_score for one in load_model(old).answer(images)} == {None}


def test_a_dozen_images_set_no_limit(run_fit: Fit) -> None:
    result = run_fit(epochs=1)
    assert result.finished.arrays["ood_score"] == {}
    assert result.metrics["val"]["unknown"] is None
    assert answers_of(load_model(result.model_path)).ood is None


def test_statistics_that_do_not_fit_together_are_refused() -> None:
    points, labels = features(60, 20, 0)
    found = fit_ood(points, labels)
    document = {"limit": 3.0}
    assert OodScorer.of_tensors(found.tensors(), document).limit == 3.0
    for name, tensor in (("centre", torch.zeros(19)), ("means", torch.zeros(3, 19)), ("scale", torch.zeros(2))):
        with pytest.raises(ValueError, match="do not fit together"):
            OodScorer.of_tensors(found.tensors() | {name: tensor}, document)
    with pytest.raises(TypeError):
        OodScorer.of_tensors({"centre": torch.zeros(3)}, document)
    assert [one.name for one in dataclasses.fields(found)][:5] == list(found.tensors())
