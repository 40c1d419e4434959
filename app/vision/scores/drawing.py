"""What the pictures have in common: colours, a figure without a display, plain axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, VAL, GAP, GRID = "#8a94a6", "#2563a8", "#e07a3f", "#d9dde4"


def figure_of(width: float, height: float) -> Figure:
    """A figure of its own, in inches: pyplot's global state is not wanted in a library, and savefig draws with Agg."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white")


def plain(axes: Axes) -> None:
    """A pale grid behind the data, and a frame on two sides."""
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa2b1")


def split_name(split: str) -> str:
    return {"val": "Validation", "test": "Test"}.get(split, split)
