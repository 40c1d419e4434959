"""Says in lines for a terminal how good a finished classifier is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def summary_lines(metrics: Mapping[str, Mapping[str, Any]], decisions: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the scores of each split and class, and what comes of a target precision."""
    for split, scores in metrics.items():
        yield (
            f"\n{split}: accuracy {scores['accuracy']:.3f}, log loss {scores['log_loss']:.3f},"
            f" {scores['samples']} images"
        )
        yield from _class_lines(scores["per_class"])
        if decisions is not None:
            yield _selection_line(decisions["target_precision"], decisions["splits"][split])


def _class_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max(len("class"), *(len(row["class"]) for row in rows))
    yield f"  {'class':{width}}  precision  recall     f1  support"
    for row in rows:
        yield (
            f"  {row['class']:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:5.3f}"
            f"  {row['support']:7d}"
        )


def _selection_line(target: float, found: Mapping[str, Any]) -> str:
    said = f"{found['coverage']:.1%} accepted"
    if found["accepted"]:
        said += (
            f", {found['precision']:.1%} of them right"
            f" (95 %: {found['precision_low']:.1%} to {found['precision_high']:.1%})"
        )
    return f"  at a target precision of {target:g}: {said}; {found['unknown']} unknown"
