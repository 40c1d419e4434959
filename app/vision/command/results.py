"""Writes what a finished run leaves beside the model: metrics, pictures, tables."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from app.vision.command.terminal import say
from app.vision.data.samples import Sample
from app.vision.training.result import FitResult


def write_results(out: Path, result: FitResult, samples: Sequence[Sample], seconds: float) -> None:
    """Write metrics.json, pictures and tables into `out`, and print the summary of the run."""
    from app.vision.training.pictures import write_pictures

    document = {
        **result.recorded,
        "images": Counter(sample.split for sample in samples),
        "config": result.config.to_dict(),
        "preprocessing": result.preprocessing.to_dict(),
        "best_epoch": result.best_epoch,
        "rate_search": result.rate_search.to_dict() if result.rate_search else None,
        "metrics": result.metrics,
        "history": result.history,
        "notes": list(result.notes),
        "duration_s": seconds,
    }
    temporary = out / f".metrics.json.{os.getpid()}"
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(out / "metrics.json")
    written = [*write_pictures(out, result.pictures), *_write_tables(out, result)]
    for line in result.finished.summary:
        say(line)
    for note in result.notes:
        say(f"\nnote: {note}")
    say(f"\nbest epoch {result.best_epoch}; done in {seconds:.0f} s")
    names = ["model.safetensors", "metrics.json", *(path.name for path in written)]
    say(f"wrote {', '.join(names)} to {out}")


def _write_tables(out: Path, result: FitResult) -> list[Path]:
    from app.vision.artefacts.tables import csv_lines, json_lines

    paths = []
    for name, table in result.tables.items():
        for lines, suffix in ((json_lines(table.rows()), "jsonl"), (csv_lines(table.rows(), table.columns), "csv")):
            path = out / f"{name}.{suffix}"
            with path.open("wb") as file:
                file.writelines(lines)
            paths.append(path)
    return paths
