"""What the pictures show, read back from the figures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from app.vision.tasks.classify.coverage_picture import coverage_picture
from app.vision.tasks.classify.pictures import (
    MOST_NAMED,
    confidence_bins,
    confusion_matrix,
    draw_pictures,
    loss_curves,
    reliability_diagram,
)
from app.vision.tasks.classify.selective_prediction import LabelledAnswers, coverage_curve, selective_prediction
from app.vision.training.pictures import write_pictures
from tests.support.runs import Fit

HISTORY: list[dict[str, Any]] = [
    {"epoch": 1, "train_loss": 0.7, "val_loss": 0.6, "train_accuracy": 0.5, "val_accuracy": 0.6},
    {"epoch": 2, "train_loss": 0.4, "val_loss": 0.3, "train_accuracy": 0.8, "val_accuracy": 0.9},
    {"epoch": 3, "train_loss": 0.2, "val_loss": 0.5, "train_accuracy": 1.0, "val_accuracy": 0.7},
]


def drawn(figure: Figure) -> tuple[float, float]:
    """Draw the figure and give its size in pixels, after checking that no text crosses the edge."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    return width, height


def test_loss_curves_show_both_splits_and_the_best_epoch() -> None:
    figure = loss_curves(HISTORY, best_epoch=2)
    drawn(figure)
    loss, accuracy = figure.axes
    for axes, key, best in ((loss, "loss", 0.3), (accuracy, "accuracy", 0.9)):
        train, val, mark = axes.lines
        assert list(train.get_ydata()) == [entry[f"train_{key}"] for entry in HISTORY]
        assert list(val.get_ydata()) == [entry[f"val_{key}"] for entry in HISTORY]
        assert list(train.get_xdata()) == [1, 2, 3]
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (2, best)


def test_a_single_epoch_can_be_seen() -> None:
    figure = loss_curves(HISTORY[:1], best_epoch=1)
    drawn(figure)
    assert all(line.get_marker() == "o" for line in figure.axes[0].lines)


def test_a_confusion_matrix_has_a_count_in_every_cell_and_the_share_as_its_shade() -> None:
    counts = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
    figure = confusion_matrix(counts, ["ants", "bees", "wasps"], title="Test")
    drawn(figure)
    axes = figure.axes[0]
    cells = {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in axes.texts}
    assert cells == {(row, column): counts[row, column] for row, column in np.ndindex(3, 3)}
    (shading,) = (item for item in axes.get_children() if isinstance(item, AxesImage))
    np.testing.assert_allclose(shading.get_array(), [[0.8, 0.2, 0], [0.25, 0.75, 0], [0, 0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ants", "bees", "wasps"]
    assert figure.get_suptitle() == "Test: 78.6% of 14 right"


@pytest.mark.parametrize("size", [2, 12, 50, 300])
def test_long_names_of_few_and_many_classes_stay_inside_the_picture(size: int) -> None:
    names = [f"{n:03d} a name that is far longer than anybody should need" for n in range(size)]
    figure = confusion_matrix(np.eye(size, dtype=np.int64), names)
    width, height = drawn(figure)
    assert max(width, height) < 20
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert size / 4 <= len(labels) <= min(size, MOST_NAMED)
    assert labels[0].startswith("000 a name")
    assert "…" in labels[0]
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(above.overlaps(below) for above, below in itertools.pairwise(boxes))


def test_confidence_is_binned_with_its_upper_edge() -> None:
    confidence = np.array([0.55, 0.6, 0.61, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    count, mean, accuracy = confidence_bins(probabilities, np.array([0, 1, 0, 0]), 5)
    assert list(count) == [0, 0, 2, 1, 1] or list(count) == [0, 0, 1, 2, 1]  # float32's 0.6 lies beside the edge
    assert count.sum() == 4
    assert mean[4] == accuracy[4] == 1.0
    assert accuracy[0] == 0.0


def test_the_reliability_diagram_shows_accuracy_by_confidence_and_the_error() -> None:
    # Eight predictions at 0.9 of which six are right, two at 0.7, both right.
    confidence = np.array([0.9] * 8 + [0.7] * 2, dtype=np.float32)
    labels = np.array([0] * 6 + [1] * 2 + [0] * 2)
    figure = reliability_diagram(np.stack([confidence, 1 - confidence], axis=1), labels, bins=10)
    drawn(figure)
    top, bottom = figure.axes
    bars = [patch for patch in top.patches if isinstance(patch, Rectangle)]
    right = sorted((round(bar.get_x(), 6), bar.get_height()) for bar in bars if bar.get_fill())
    assert [height for _, height in right] == [1.0, 0.75]
    gaps = sorted(round(bar.get_height(), 4) for bar in bars if not bar.get_fill())
    assert gaps == [0.15, 0.3]
    assert [bar.get_height() for bar in bottom.patches if bar.get_height()] == [2, 8]  # type: ignore[attr-defined]
    assert top.get_title(loc="left") == f"calibration error {0.8 * 0.15 + 0.2 * 0.3:.3f}"


def test_coverage_is_drawn_with_its_interval_the_target_and_what_the_thresholds_come_to() -> None:
    confidence = np.linspace(0.5, 1, 60)
    verdicts = LabelledAnswers(np.zeros(60, np.int64), confidence, confidence > 0.6, np.ones(60, np.bool_))
    curve, decisions = coverage_curve(verdicts), selective_prediction({"val": verdicts}, ["ants"], 0.9)
    figure = coverage_picture(curve, "val", decisions)
    drawn(figure)
    (axes,) = figure.axes
    line, target, point = axes.lines[:3]
    assert list(line.get_xdata()) == curve["coverage"]
    assert list(line.get_ydata()) == curve["precision"]
    assert set(target.get_ydata()) == {0.9}
    found = decisions["splits"]["val"]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (found["coverage"], found["precision"])
    assert len(coverage_picture(curve, "val").axes[0].lines) == 1


def test_a_run_leaves_a_picture_of_each_kind(run_fit: Fit, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, run_fit(epochs=2).pictures)
    assert sorted(path.name for path in paths) == [
        "confusion-test.png",
        "confusion-val.png",
        "coverage-test.png",
        "coverage-val.png",
        "curves.png",
        "reliability-test.png",
        "reliability-val.png",
    ]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 250
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_names_that_no_font_has_or_that_look_like_mathematics_spoil_no_picture(run_fit: Fit, tmp_path: Path) -> None:
    done = run_fit(epochs=1)
    probabilities = done.finished.arrays["probabilities"]
    labels = {split: rows.argmax(axis=1) for split, rows in probabilities.items()}
    classes = ["$x_{", "between $1$ and $5$", "\u65e5\u672c"]
    pictures = draw_pictures(done.history, done.best_epoch, done.metrics, probabilities, labels, classes, None)
    assert len(write_pictures(tmp_path, pictures)) == 7
    figure = confusion_matrix(np.eye(3, dtype=int), classes)
    assert figure.axes[0].get_yticklabels()[0].get_text() == r"\$x_{"
