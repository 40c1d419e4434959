"""Measure two things in turn (A B A B …), so that a busy machine slows both alike, and print one JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Timed = Callable[[int], float]


def clock(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes, the accelerator's queue included."""
    _finish()
    began = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - began


def alternate(first: Timed, second: Timed, rounds: int) -> tuple[list[float], list[float]]:
    """Return what `first` and `second` answer to each round's number, called in turn."""
    pairs = []
    for number in range(rounds):
        pairs.append((first(number), second(number)))
        note(f"round {number + 1}/{rounds}: {pairs[-1][0]:.3f} against {pairs[-1][1]:.3f}")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def compared(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, Any]:
    """Return the ratio of the medians, and the lowest and highest ratio of a single round."""
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    return {
        "ratio": round(statistics.median(numerators) / statistics.median(denominators), 3),
        "ratio_of_rounds": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median, the lowest and the highest."""
    return {
        "median": round(statistics.median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
    }


def arguments(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser of the options that every benchmark has; `defaults` replace some of the defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--data", type=Path, help="an image folder with train/ and val/, or a zip of one; else generated"
    )
    parser.add_argument("--backbone", default="resnet18-tiny64", help="a ResNet")
    parser.add_argument("--weights", type=Path, help="its weights, where they are not the bundled ones")
    parser.add_argument("--size", type=int, default=224, help="side of the network's input, pixels")
    parser.set_defaults(**defaults)
    return parser


def emit(name: str, **figures: Any) -> None:
    """Print the benchmark's one line."""
    print(json.dumps({"bench": name, **figures, "machine": machine()}), flush=True)


def note(line: str) -> None:
    """Say on stderr how far the benchmark is."""
    print(line, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def device() -> torch.device:
    """Return the accelerator, or else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
