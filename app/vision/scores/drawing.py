"""Gives what the pictures have in common: colours, a figure without a display, plain axes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
TRAIN, VAL, GAP, GRID = "#8a94a6", "#2563a8", "#e07a3f", "#d9dde4"


def figure_of(width: float, height: float) -> Figure:
    """Return a figure of its own, in inches; pyplot's global state is not wanted in a library."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white")


def plain(axes: Axes) -> None:
    """Draw a pale grid behind the data, and a frame on two sides."""
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa2b1")


def split_name(split: str) -> str:
    return {"val": "Validation", "test": "Test"}.get(split, split)


def write_figure(path: Path, figure: Figure) -> Path:
    """Write the figure as a PNG, whole or not at all, and return its path."""
    temporary = path.with_name(f".{path.name}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # then the name shows a box
        figure.savefig(temporary, format="png", dpi=DPI)
    return temporary.replace(path)
