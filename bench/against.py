"""Run a benchmark at an earlier commit and here, in turn: `python -m bench.against ingestion --commit d44b4f5`.

Each round runs the whole benchmark once in either tree (A B A B ...), in the tree's own environment and by the tree's
own script, and takes what its line says of Graftwork's own speed. `ratio` is the speed of this tree over that of the
earlier commit, so 1.02 is two per cent faster, whether the figure is a time or a rate. `same` says whether all runs
gave the same answers. `own_ratio` compares the benchmark's own ratio to its other side, which is measured in the same
minutes and slowed by whatever else slows the machine. What stands after `--` goes to the benchmark: `-- --kind medium`.

Prints one JSON line for each benchmark, and ends with 1 where one of them is slower by more than `--tolerance`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checkouts import Checkout, add_options, chosen, this_checkout
from bench.rounds import alternate, compared, emit, note, spread

TOLERANCE = 0.03
PATIENCE = 3600.0  # seconds for one run of a benchmark

Line = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """Say what a benchmark is given for a round, and where its line has the figures; dots lead into nested objects."""

    options: tuple[str, ...]
    figures: tuple[str, ...]  # the first is the one that decides
    rate: bool  # more is better; otherwise the figures are times
    same: tuple[str, ...] = ()
    data: bool = True  # takes --data


ROUND = ("--rounds", "1")
BENCHMARKS = {
    "frozen_trunk": Benchmark(
        (*ROUND, "--tutorial-epochs", "1"), ("graftwork_s.median",), rate=False, same=("accuracy.graftwork",)
    ),
    "full_finetune": Benchmark(
        (*ROUND, "--epochs", "2"), ("graftwork_s.median",), rate=False, same=("accuracy.graftwork",)
    ),
    "serve_http": Benchmark(ROUND, ("images_per_second.http.median",), rate=True, same=("engine",)),
    "serve_others": Benchmark(
        (*ROUND, "--here", "--others", "fastapi"),
        ("images_per_second.graftwork.median", "images_per_second.graftwork torch.median"),
        rate=True,
        same=("engine",),
    ),
    "dispatch": Benchmark(("--mode", "embedded", "--jobs", "5"), ("p50_ms",), rate=False, data=False),
    "ingestion": Benchmark(ROUND, ("ingestion_images_per_s.median",), rate=True, data=False),
}


def value(line: Line, path: str) -> Any:
    """Return what the line has at that path; raises SystemExit that names the path where there is nothing."""
    found: Any = line
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            raise SystemExit(f"{line.get('bench')}: its line has no {path}: {json.dumps(line)[:500]}")
        found = found[name]
    return found


def run(checkout: Checkout, name: str, options: Sequence[str]) -> Line:
    """Return the line that the benchmark prints in that tree; raises SystemExit where it prints none, or several."""
    command = checkout.module(f"bench.{name}", *options)
    done = subprocess.run(
        command, cwd=checkout.root, env=checkout.environment(), stdout=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    lines = [json.loads(text) for text in done.stdout.splitlines() if text.startswith('{"bench"')]
    if len(lines) != 1:
        raise SystemExit(
            f"{' '.join(command)} in {checkout.root} ended with {done.returncode} and printed {len(lines)} lines of"
            " figures; one is needed."
        )
    if done.returncode:  # it has missed its own aim, which says nothing about the other commit
        note(f"{name} in {checkout.root} ended with {done.returncode}")
    found: Line = lines[0]
    return found


def against(before: Checkout, after: Checkout, name: str, options: Sequence[str], rounds: int) -> Line:
    """Return the figures of `name` at both commits, from that many rounds."""
    benchmark = BENCHMARKS[name]
    lines: dict[str, list[Line]] = {"before": [], "after": []}

    def side(checkout: Checkout, kept: list[Line]) -> Callable[[int], float]:
        def once(_: int) -> float:
            kept.append(run(checkout, name, [*benchmark.options, *options]))
            return float(value(kept[-1], benchmark.figures[0]))

        return once

    alternate(side(before, lines["before"]), side(after, lines["after"]), rounds)
    figures = {path: _figures(benchmark, path, lines) for path in benchmark.figures}
    everything = lines["before"] + lines["after"]
    return {
        **figures.pop(benchmark.figures[0]),
        "figure": benchmark.figures[0],
        "unit": "more is better" if benchmark.rate else "less is better",
        **({"beside": figures} if figures else {}),
        **_own_ratio(lines),
        "same": {path: len({json.dumps(value(line, path)) for line in everything}) == 1 for path in benchmark.same},
        "commits": {"before": before.description(), "after": after.description()},
        "options": [*benchmark.options, *options],
        "rounds": rounds,
    }


def _figures(benchmark: Benchmark, path: str, lines: dict[str, list[Line]]) -> Line:
    old, new = ([float(value(line, path)) for line in lines[side]] for side in ("before", "after"))
    return {
        **(compared(new, old) if benchmark.rate else compared(old, new)),
        "before": spread(old),
        "after": spread(new),
    }


def _own_ratio(lines: dict[str, list[Line]]) -> Line:
    """Return how the benchmark's own ratio compares, which its other side has measured in the same minute."""
    if any("ratio" not in line for side in lines.values() for line in side):
        return {}
    old, new = ([float(line["ratio"]) for line in lines[side]] for side in ("before", "after"))
    return {"own_ratio": compared(new, old) | {"before": spread(old), "after": spread(new)}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the options say; return 1 where a benchmark is slower than allowed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    options, passed = _parser().parse_args(given[:cut]), given[cut + 1 :]
    if passed and len(options.benchmarks) > 1:
        _parser().error(f"{' '.join(passed)}: options after -- are for one benchmark; name only one.")
    if options.rounds < 5:
        note(f"{options.rounds} rounds say little; a figure to quote takes five.")
    before, after = chosen(options, "dev"), this_checkout()
    slower = False
    for name in options.benchmarks:
        data = ["--data", str(options.data.resolve())] if options.data and BENCHMARKS[name].data else []
        figures = against(before, after, name, [*data, *passed], options.rounds)
        met = figures["ratio"] >= 1 - options.tolerance
        slower = slower or not met
        emit("against", benchmark=name, **figures, tolerance=options.tolerance, met=met)
    return slower


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="+", choices=BENCHMARKS, metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    add_options(parser)
    parser.add_argument("--data", type=Path, help="an image folder or zip, for the benchmarks that take one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="the share that may be lost")
    return parser


if __name__ == "__main__":
    sys.exit(main())
