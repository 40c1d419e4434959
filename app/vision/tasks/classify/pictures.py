"""Draws a classifier: loss curves, confusion matrix, reliability diagram, coverage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.vision.scores.drawing import GAP, TRAIN, VAL, figure_of, plain, split_name
from app.vision.tasks.classify.coverage_picture import coverage_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_NAME = 28  # characters of a class name that fit beside a matrix; longer ones lose their middle
MOST_COUNTED = 25  # classes up to which every cell bears its count
MOST_NAMED = 80  # classes up to which every one is named
BINS = 15  # of confidence, as in Guo et al. 2017, arXiv:1706.04599


def draw_pictures(
    history: Sequence[Mapping[str, Any]],
    best_epoch: int,
    metrics: Mapping[str, Mapping[str, Any]],
    probabilities: Mapping[str, NDArray[np.float32]],
    labels: Mapping[str, NDArray[np.int64]],
    classes: Sequence[str],
    decisions: Mapping[str, Any] | None,
) -> dict[str, Callable[[], Figure]]:
    """Return what draws curves.png, and of each split with probabilities confusion, reliability and coverage.

    `labels` holds int [N] for each split, in the order of the probabilities [N, C].
    """
    pictures: dict[str, Callable[[], Figure]] = {"curves.png": partial(loss_curves, history, best_epoch)}
    for split, found in probabilities.items():
        title, counts = split_name(split), np.asarray(metrics[split]["confusion"])
        pictures |= {
            f"confusion-{split}.png": partial(confusion_matrix, counts, classes, title=title),
            f"reliability-{split}.png": partial(reliability_diagram, found, labels[split], title=title),
            f"coverage-{split}.png": partial(coverage_picture, metrics[split]["coverage"], split, decisions),
        }
    return pictures


def loss_curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Return loss and accuracy of training and validation over the epochs, the best one marked."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = figure_of(9.0, 3.8)
    epochs = [entry["epoch"] for entry in history]
    marker = "o" if len(epochs) < 3 else None  # a line through one point cannot be seen
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("Loss (nats)", "Accuracy"), strict=True):
        for part, colour, name in (("train", TRAIN, "training"), ("val", VAL, "validation")):
            axes.plot(epochs, [entry[f"{part}_{key}"] for entry in history], color=colour, label=name, marker=marker)
        best = next((entry for entry in history if entry["epoch"] == best_epoch), None)
        if best is not None:
            axes.plot(
                best_epoch,
                best[f"val_{key}"],
                "o",
                color=GAP,
                zorder=3,
                clip_on=False,
                label=f"best epoch ({best_epoch})",
            )
        axes.set_xlabel("Epoch")
        axes.set_title(title, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(x=0.02)
        axes.legend(frameon=False)
        plain(axes)
        if key == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        else:
            axes.set_ylim(bottom=0.0)
    return figure


def confusion_matrix(counts: NDArray[Any], classes: Sequence[str], *, title: str = "") -> Figure:
    """Return a row for each true class, a column for each predicted one; shaded by the share of the true class.

    `counts` is int [C, C]. Cells bear their counts up to MOST_COUNTED classes; names are thinned out above MOST_NAMED.
    """
    from matplotlib.colors import PowerNorm

    size = len(classes)
    names = [_shortened(name) for name in classes]
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape, dtype=np.float64), where=support > 0)
    cell = 0.62 if size <= 8 else 0.42 if size <= MOST_COUNTED else 0.2 if size <= MOST_NAMED else 12 / size
    longest = max(len(name) for name in names)
    font = 9.0 if size <= MOST_COUNTED else 7.0
    margin = 1.1 + longest * font * 0.0085
    side = max(size * cell, 2.2)
    figure = figure_of(side + margin + 1.0, side + margin)
    axes = figure.subplots()
    # Without numbers the shade alone must show that a cell is not empty.
    norm = PowerNorm(1.0 if size <= MOST_COUNTED else 0.5, vmin=0.0, vmax=1.0)
    shading = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    places = np.arange(0, size, max(1, -(-size // MOST_NAMED)))
    axes.set_xticks(places, [names[place] for place in places], fontsize=font)
    axes.set_yticks(places, [names[place] for place in places], fontsize=font)
    if longest * font * 0.0085 > side / size:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0 if size <= MOST_COUNTED else 0.4)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if size <= MOST_COUNTED:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.55 else "#2b2f36" if counts[row, column] else "#b4bac4"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", fontsize=font, color=colour)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    figure.suptitle(f"{title + ': ' if title else ''}{accuracy:.1%} of {int(counts.sum()):,} right", fontsize=11)
    bar = figure.colorbar(shading, ax=axes, shrink=0.8, aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("Share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=8, length=0)
    return figure


def reliability_diagram(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], *, title: str = "", bins: int = BINS
) -> Figure:
    """Return how often predictions of each confidence are right, and how many there are; float [N, C] and int [N]."""
    from matplotlib.ticker import PercentFormatter

    edges = np.linspace(0.0, 1.0, bins + 1)
    count, confidence, accuracy = confidence_bins(probabilities, labels, bins)
    error = float((count * np.abs(accuracy - confidence)).sum() / max(count.sum(), 1))
    figure = figure_of(4.8, 5.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = count > 0
    left, width = edges[:-1][filled], 1 / bins
    low, high = np.minimum(accuracy, confidence)[filled], np.maximum(accuracy, confidence)[filled]
    top.bar(left, accuracy[filled], width, align="edge", color=VAL, edgecolor="white", label="share that is right")
    gap: dict[str, Any] = {"fill": False, "edgecolor": GAP, "hatch": "////", "label": "gap to the confidence"}
    top.bar(left, high - low, width, bottom=low, align="edge", **gap)
    top.plot((0, 1), (0, 1), "--", color="#4a5160", linewidth=1, label="perfectly calibrated")
    top.set_ylabel("Right")
    top.set_ylim(0, 1)
    top.set_xlim(0, 1)
    top.legend(frameon=False, loc="upper left", fontsize=8)
    top.set_title(f"{title + ': ' if title else ''}calibration error {error:.3f}", loc="left", fontsize=11)
    bottom.bar(edges[:-1], count, width, align="edge", color=TRAIN, edgecolor="white")
    bottom.set_ylabel("Images")
    bottom.set_xlabel("Confidence (probability of the predicted class)")
    for axes in (top, bottom):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        plain(axes)
    top.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def confidence_bins(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return count, mean confidence and accuracy of the predictions in each of `bins` equally wide bins (else 0)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # bins are open below, closed above
    count = np.bincount(place, minlength=bins)
    total = np.maximum(count, 1)
    return (
        count,
        np.bincount(place, weights=confidence, minlength=bins) / total,
        np.bincount(place, weights=right, minlength=bins) / total,
    )


def _shortened(name: str) -> str:
    half = (LONGEST_NAME - 1) // 2
    short = name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"
    return short.replace("$", r"\$")  # a pair of them would be taken for mathematics, and may not be any
