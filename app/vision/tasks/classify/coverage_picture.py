"""Draws coverage against precision: what accepting fewer answers buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.vision.scores.drawing import GAP, TRAIN, VAL, figure_of, plain, split_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coverage_picture(
    curve: Mapping[str, Sequence[float]], split: str, decisions: Mapping[str, Any] | None = None
) -> Figure:
    """Return a picture of `selective_prediction.coverage_curve`, with its interval as a band.

    With `decisions` (of `selective_prediction.selective_prediction`) the target is a line, and what the thresholds of
    all classes together come to on this split is a point, with its interval.
    """
    from matplotlib.ticker import PercentFormatter

    figure = figure_of(6.4, 4.2)
    axes = figure.subplots()
    axes.fill_between(curve["coverage"], curve["low"], curve["high"], color=VAL, alpha=0.15, linewidth=0, label="95 %")
    axes.plot(curve["coverage"], curve["precision"], color=VAL, marker=".", label="by probability alone")
    if decisions is not None:
        target, found = decisions["target_precision"], decisions["splits"][split]
        axes.axhline(target, color=TRAIN, linestyle="--", linewidth=1, label=f"target {target:g}")
        if found["accepted"]:
            below, above = found["precision"] - found["precision_low"], found["precision_high"] - found["precision"]
            look: dict[str, Any] = {"fmt": "o", "color": GAP, "capsize": 3, "label": "by the thresholds"}
            axes.errorbar([found["coverage"]], [found["precision"]], yerr=[[below], [above]], **look)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(top=1.005)
    axes.set_xlabel("Coverage (share of the images that is accepted)")
    axes.set_title(f"{split_name(split)}: precision of what is accepted", loc="left", fontsize=11)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False, loc="lower left", fontsize=8)
    plain(axes)
    return figure
