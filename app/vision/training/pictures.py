"""Draws a learning-rate range test, and writes a run's pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from app.vision.scores.drawing import GAP, VAL, figure_of, plain, write_figure
from app.vision.training.rate_search import RateSearch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_pictures(folder: Path, pictures: Mapping[str, Callable[[], Figure]]) -> list[Path]:
    """Draw each picture and write it as a PNG of its name, whole or not at all; returns the paths."""
    return [write_figure(folder / name, draw()) for name, draw in pictures.items()]


def rate_curve(search: RateSearch) -> Figure:
    """Return the smoothed loss at each rate that was tried, and the suggestion."""
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
