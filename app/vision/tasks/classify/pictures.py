"""Pictures of a finished run: loss curves, confusion matrix, reliability diagram, coverage, drawn without a display."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.vision.scores.drawing import GAP, TRAIN, VAL, figure_of, plain, split_name
from app.vision.tasks.classify.coverage_picture import coverage_picture
from app.vision.training.run import FitResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from app.vision.training.rate_search import RateSearch

DPI = 130
LONGEST_NAME = 28  # characters of a class name that fit beside a matrix; longer ones lose their middle
MOST_COUNTED = 25  # classes up to which every cell bears its count
MOST_NAMED = 80  # classes up to which every one is named
BINS = 15  # of confidence, as in Guo et al. 2017, arXiv:1706.04599


def write_reports(
    folder: Path, result: FitResult, labels: Mapping[str, ArrayLike], classes: Sequence[str]
) -> list[Path]:
    """Write curves.png, and confusion-SPLIT.png, reliability-SPLIT.png and coverage-SPLIT.png of every split with
    probabilities. And rate-search.png where there was a search.

    `labels` holds int [N] for each split, in the order of the samples. Gives the paths that were written.
    """
    figures = {"curves.png": loss_curves(result.history, result.best_epoch)}
    for split, probabilities in result.probabilities.items():
        truth = np.asarray(labels[split], dtype=np.int64)
        counts = np.asarray(result.metrics[split]["confusion"])
        figures[f"confusion-{split}.png"] = confusion_matrix(counts, classes, title=split_name(split))
        figures[f"reliability-{split}.png"] = reliability_diagram(probabilities, truth, title=split_name(split))
        curve = result.metrics[split]["coverage"]
        figures[f"coverage-{split}.png"] = coverage_picture(curve, split, result.decisions)
    if result.rate_search is not None:
        figures["rate-search.png"] = rate_curve(result.rate_search)
    return write_figures(folder, figures)


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write each as a PNG of that name, whole or not at all."""
    paths = []
    for name, figure in figures.items():
        temporary = folder / f".{name}"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # then the name shows a box
            figure.savefig(temporary, format="png", dpi=DPI)
        temporary.replace(folder / name)
        paths.append(folder / name)
    return paths


def loss_curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Loss and accuracy of training and validation over the epochs of `FitResult.history`; the best one is marked."""
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


def rate_curve(search: RateSearch) -> Figure:
    """The smoothed loss at each rate that was tried, and the suggestion."""
    figure = figure_of(6.4, 3.8)
    axes = figure.subplots()
    axes.plot(search.rates, search.losses, color=VAL)
    axes.set_xscale("log")
    axes.axvline(search.suggestion, color=GAP, linestyle="--", label=f"suggested: {search.suggestion:.2g}")
    # The last losses are far above the rest, which is what matters.
    first, lowest = search.losses[0], min(search.losses)
    room = max(first - lowest, 0.1 * first)
    axes.set_ylim(max(lowest - 0.3 * room, 0.0), first + room)
    axes.set_xlabel("Learning rate")
    axes.set_title("Smoothed training loss (nats)", loc="left")
    axes.legend(frameon=False, loc="upper left")
    plain(axes)
    return figure


def confusion_matrix(counts: NDArray[Any], classes: Sequence[str], *, title: str = "") -> Figure:
    """A row for each true class, a column for each predicted one; shaded by the share of the true class.

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
    """How often predictions of each confidence are right, and how many there are; float [N, C] and int [N]."""
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
    top.bar(
        left, high - low, width, bottom=low, align="edge", fill=False, edgecolor=GAP, hatch="////",
        label="gap to the confidence",
    )  # fmt: skip
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
    """Count, mean confidence and accuracy of the predictions in each of `bins` equally wide bins (0 where empty)."""
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
