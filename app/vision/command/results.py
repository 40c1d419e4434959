"""Files and lines that the command writes of a finished run: metrics, pictures, a row for every image."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.vision.command.terminal import say
from app.vision.training.run import FitResult, Sample


def write_results(
    out: Path, result: FitResult, samples: Sequence[Sample], classes: Sequence[str], seconds: float
) -> None:
    from app.vision.tasks.classify.pictures import write_reports

    document = {
        "classes": list(classes),
        "images": Counter(sample.split for sample in samples),
        "config": result.config.to_dict(),
        "preprocessing": result.preprocessing.to_dict(),
        "best_epoch": result.best_epoch,
        "rate_search": result.rate_search.to_dict() if result.rate_search else None,
        "metrics": result.metrics,
        "decisions": result.decisions,
        "history": result.history,
        "notes": list(result.notes),
        "duration_s": seconds,
    }
    temporary = out / f".metrics.json.{os.getpid()}"
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(out / "metrics.json")
    labels = {split: [sample.label for sample in samples if sample.split == split] for split in result.probabilities}
    pictures = write_reports(out, result, labels, classes)
    tables = _write_tables(out, result, samples, classes)
    for split, scores in result.metrics.items():
        _print_scores(split, scores)
        if result.decisions is not None:
            _print_decisions(split, result.decisions)
    for note in result.notes:
        say(f"\nnote: {note}")
    say(f"\nbest epoch {result.best_epoch}; done in {seconds:.0f} s")
    names = ["model.safetensors", "metrics.json", *(path.name for path in [*pictures, *tables])]
    say(f"wrote {', '.join(names)} to {out}")


def _write_tables(out: Path, result: FitResult, samples: Sequence[Sample], classes: Sequence[str]) -> list[Path]:
    from app.vision.tasks.classify.image_table import csv_lines, image_rows, json_lines

    paths = []
    for split in result.probabilities:
        for lines, suffix in ((json_lines, "jsonl"), (csv_lines, "csv")):
            path = out / f"evaluations-{split}.{suffix}"
            with path.open("wb") as file:
                file.writelines(lines(image_rows(result, samples, classes, split)))
            paths.append(path)
    return paths


def _print_scores(split: str, scores: Mapping[str, Any]) -> None:
    say(f"\n{split}: accuracy {scores['accuracy']:.3f}, log loss {scores['log_loss']:.3f}, {scores['samples']} images")
    width = max(len("class"), *(len(row["class"]) for row in scores["per_class"]))
    say(f"  {'class':{width}}  precision  recall     f1  support")
    for row in scores["per_class"]:
        say(
            f"  {row['class']:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:5.3f}"
            f"  {row['support']:7d}"
        )


def _print_decisions(split: str, decisions: Mapping[str, Any]) -> None:
    found = decisions["splits"][split]
    said = f"{found['coverage']:.1%} accepted"
    if found["accepted"]:
        said += (
            f", {found['precision']:.1%} of them right"
            f" (95 %: {found['precision_low']:.1%} to {found['precision_high']:.1%})"
        )
    say(f"  at a target precision of {decisions['target_precision']:g}: {said}; {found['unknown']} unknown")
