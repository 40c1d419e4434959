"""Tells a person at a terminal of a run, and keeps its checkpoints meanwhile."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from app.vision.runtime.launch import speaks
from app.vision.runtime.stopping import StopSignals
from app.vision.training.checkpoint_folder import CheckpointFolder

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
NOTE_EVERY_S = 10.0  # a phase that takes long says how far it is


def fail(message: str, code: int) -> int:
    if speaks():
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def say(line: str) -> None:
    if speaks():
        print(line, flush=True)


class Terminal:
    """Prints a line an epoch and keeps checkpoints, for a run that is interrupted or killed."""

    def __init__(self, signals: StopSignals, kept: CheckpointFolder) -> None:
        self._signals = signals
        self._kept = kept
        self._phase = ""
        self._said_at = 0.0

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        now = time.monotonic()
        if phase == self._phase and (phase == "training" or now - self._said_at < NOTE_EVERY_S):
            return
        left = f", about {eta_s:.0f} s left" if phase == self._phase and eta_s is not None else ""
        if phase != self._phase or left:
            say(f"{phase} ({fraction:.0%}{left})")
        self._phase, self._said_at = phase, now

    def epoch(self, metrics: dict[str, Any]) -> None:
        width = len(str(metrics["epochs"]))
        # What is measured in training and in validation alike, whatever the task.
        both = [name.removeprefix("train_") for name in metrics if name.startswith("train_")]
        said = "  ".join(f"{part} {_figures(metrics, part, both)}" for part in ("train", "val"))
        say(f"epoch {metrics['epoch']:{width}}/{metrics['epochs']}  {said}  {metrics['images_per_s']:.0f} img/s")

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        self._kept.keep(path, epoch, step, best)

    def should_stop(self) -> bool:
        return self._signals.asked


def _figures(metrics: dict[str, Any], part: str, names: list[str]) -> str:
    found = {name: metrics[f"{part}_{name}"] for name in names if f"{part}_{name}" in metrics}
    return " ".join(f"{name} {value:.{4 if name == 'loss' else 3}f}" for name, value in found.items())
