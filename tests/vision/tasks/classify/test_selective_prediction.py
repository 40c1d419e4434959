"""Thresholds keep what they promise on images that had no say in them, and cost no more coverage than they must."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from app.vision.artefacts.tables import csv_lines
from app.vision.data.samples import Sample
from app.vision.scores.intervals import interval, least_trials
from app.vision.tasks.classify.answers import ClassAnswer, ClassAnswers
from app.vision.tasks.classify.selective_prediction import (
    LabelledAnswers,
    choose_thresholds,
    coverage_curve,
    notes_on_thresholds,
    select,
    selective_metrics,
    selective_prediction,
)
from tests.support.runs import Fit

CLASSES = ("ants", "bees", "wasps")


def answered(confidence: list[float], right: list[bool], label: int = 0) -> LabelledAnswers:
    count = len(confidence)
    return LabelledAnswers(np.full(count, label), np.array(confidence), np.array(right), np.ones(count, dtype=np.bool_))


def test_an_answer_is_accepted_from_its_classs_threshold_on() -> None:
    thresholds = (0.6, None)
    assert select(0, 0.6, None, thresholds) == "accept"
    assert select(0, 0.59, None, thresholds) == "abstain"
    assert select(1, 1.0, None, thresholds) == "abstain"
    assert select(0, 0.6, 1.0, thresholds) == "accept"
    assert select(0, 0.6, 1.01, thresholds) == "unknown"
    assert select(0, 0.6, 1.01, None) == "unknown"
    assert select(0, 0.6, 0.5, None) is None
    answers, row = ClassAnswers(CLASSES[:2]), np.array([0.3, 0.7], np.float32)
    assert answers.decision(ClassAnswer(row, 1.5), (0.5, 0.5)) == "unknown"
    assert answers.decision(ClassAnswer(row, None), (0.5, 0.5)) == "accept"
    assert answers.decision(ClassAnswer(row, None), (0.5, 0.8)) == "abstain"


def test_the_threshold_is_the_lowest_that_validation_shows() -> None:
    least = least_trials(0.9)  # 36 that are all right
    sure, unsure = [0.9] * least, [0.5] * 40
    found = answered(sure + unsure, [True] * least + [False] * 40)
    assert choose_thresholds(found, 2, 0.9) == [0.9, None]
    # One less, or one of them wrong, shows nothing.
    assert choose_thresholds(answered(sure[1:], [True] * (least - 1)), 1, 0.9) == [None]
    assert choose_thresholds(answered(sure, [True] * (least - 1) + [False]), 1, 0.9) == [None]
    # Those that are unsure and right are accepted too; images of equal confidence stay together.
    assert choose_thresholds(answered(sure + unsure, [True] * (least + 40)), 1, 0.9) == [0.5]
    assert choose_thresholds(answered(sure + unsure, [True] * (least + 20) + [False] * 20), 1, 0.9) == [0.9]
    unknown = LabelledAnswers(
        found.predicted, found.confidence, np.ones(least + 40, np.bool_), np.arange(least + 40) >= least
    )
    assert choose_thresholds(unknown, 1, 0.9) == [0.5]  # by the 40 that are known
    assert choose_thresholds(LabelledAnswers.from_rows([], CLASSES), 3, 0.9) == [None] * 3


def test_what_comes_of_thresholds_is_counted() -> None:
    both = LabelledAnswers(
        np.array([0, 0, 0, 1, 1]),
        np.array([0.9, 0.8, 0.4, 0.7, 0.99]),
        np.array([True, False, True, True, True]),
        np.array([True, True, True, True, False]),
    )
    found = selective_metrics(both, [0.8, 0.6], CLASSES[:2])
    assert (found["images"], found["accepted"], found["unknown"]) == (5, 3, 1)
    assert (found["coverage"], found["precision"]) == (0.6, pytest.approx(2 / 3))
    assert (found["precision_low"], found["precision_high"]) == interval(2, 3)
    ants, bees = found["per_class"]
    assert (ants["class"], ants["images"], ants["accepted"], ants["precision"]) == ("ants", 3, 2, 0.5)
    assert (bees["class"], bees["images"], bees["accepted"], bees["precision"]) == ("bees", 2, 1, 1.0)
    nothing = selective_metrics(both, [None, None], CLASSES[:2])
    assert (nothing["accepted"], nothing["precision"], nothing["precision_low"]) == (0, None, None)
    json.dumps(nothing, allow_nan=False)


def test_the_curve_runs_from_the_surest_to_all() -> None:
    found = answered([0.5 + n / 200 for n in range(100)], [n >= 20 for n in range(100)])
    curve = coverage_curve(found)
    assert curve["coverage"][-1] == 1.0
    assert curve["coverage"] == sorted(curve["coverage"])
    assert curve["threshold"] == sorted(curve["threshold"], reverse=True)
    assert dict(zip(curve["coverage"], curve["precision"], strict=True))[0.8] == 1.0
    assert curve["precision"][-1] == 0.8
    assert (curve["low"][-1], curve["high"][-1]) == interval(80, 100)
    unknown = LabelledAnswers(found.predicted, found.confidence, found.right, np.arange(100) >= 50)
    assert coverage_curve(unknown)["coverage"][-1] == 0.5


def drawn(rng: np.random.Generator, samples: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Probabilities of a calibrated model of three classes, of which the last is hard, and labels drawn from them."""
    truth = rng.integers(0, 3, samples)
    scores = rng.normal(0, 1, (samples, 3)) * np.where(truth == 2, 1.5, 3.5)[:, None]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > rng.random((samples, 1))).argmax(axis=1)
    return probabilities.astype(np.float32), labels


@pytest.mark.parametrize(("target", "least", "coverage"), [(0.9, 250, 0.4), (0.95, 100, 0.1)])
def test_the_precision_holds_on_what_had_no_say(target: float, least: int, coverage: float) -> None:
    """Of many models, hardly any class is less precise, on images without end, than was promised."""
    rng = np.random.default_rng(7)
    broken, chosen, coverages, plain = 0, 0, [], []
    for _ in range(100):
        thresholds = choose_thresholds(LabelledAnswers.from_probabilities(*drawn(rng, 900)), 3, target)
        there = selective_metrics(LabelledAnswers.from_probabilities(*drawn(rng, 40_000)), thresholds, CLASSES)
        plain.append(
            selective_metrics(LabelledAnswers.from_probabilities(*drawn(rng, 10_000)), [0.0] * 3, CLASSES)["precision"]
        )
        coverages.append(there["coverage"])
        for row in there["per_class"]:
            if row["precision"] is not None:
                chosen += 1
                broken += row["precision"] < target
    print(f"target {target}: {broken} of {chosen} below, coverage {np.mean(coverages):.1%}, all {np.mean(plain):.1%}")
    assert chosen >= least
    assert broken / chosen <= 0.05
    assert np.mean(coverages) > coverage
    assert max(plain) < target - 0.05  # had all been accepted, no model would have kept the promise


def test_a_run_with_a_target_says_what_it_accepts(run_fit: Fit, samples: list[Sample]) -> None:
    result = run_fit(epochs=4, target_precision=0.5)
    decisions = result.recorded["decisions"]
    assert decisions["target_precision"] == 0.5
    assert list(decisions["splits"]) == ["val", "test"]
    # Four images of a class show nothing: that takes six.
    assert decisions["thresholds"] == dict.fromkeys(("disc", "square", "stripes"))
    (note,) = result.notes
    assert "3 of 3 classes cannot show it" in note
    assert "takes 6 images" in note
    assert run_fit("without").recorded["decisions"] is None


def test_a_models_table_is_enough_to_choose_again(run_fit: Fit) -> None:
    """Another target needs no training: the rows say what the arrays said."""
    result, classes = run_fit(epochs=4, target_precision=0.6), ("disc", "square", "stripes")
    rows = {split: list(result.tables[f"evaluations-{split}"].rows()) for split in ("val", "test")}
    found = {split: LabelledAnswers.from_rows(rows[split], classes) for split in rows}
    again = selective_prediction(found, classes, 0.6)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(result.recorded["decisions"]))
    assert notes_on_thresholds(again) == list(result.notes)
    heading, *lines = csv_lines(rows["val"], result.tables["evaluations-val"].columns)
    assert heading.decode().strip().endswith(",ood_score")
    assert len(lines) == 12
