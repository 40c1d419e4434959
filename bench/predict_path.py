"""Measure what each shortcut of the predict call is worth: the service with all of them against one that goes without.

All variants run in one process and are asked in turn, a block of calls each, through ASGI: the server and the network
cost the same with all of them. Images and network are small. `loop_us` is the processor time a call that the event
loop's thread takes, `process_us` what the whole process takes: decoding, classifying and reading the database run in
other threads. Of the blocks the lower quartile counts, since whatever else runs on the machine only adds.
`switch_seconds` is measured with 16 callers, by how late the event loop is on average (`late_us`); `refused_seconds`
with 96 callers for a queue of 64 images, where most calls are refused.

`--before` names a checkout of another commit with an environment of its own, and compares with that instead, in turn.
"""

from __future__ import annotations

import base64
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from app.cli.demo.command import own_service
from app.cli.pack import as_archive
from app.cli.show import watch_dataset, watch_job
from app.vision.data.imagefolder import read_image_folder
from bench.inputs import image_folder
from bench.rounds import arguments, emit, note

HERE = Path(__file__).parents[1]
# What is switched off to see what it is worth.
ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "direct": {"direct": False},
    "keys": {"keys": False},
    "models": {"models": False},
    "first": {"first": False},
    "none": {"direct": False, "keys": False, "models": False, "first": False},
}
TOGETHER: dict[str, dict[str, Any]] = {"switch_seconds": {"switch_seconds": 0.005}}
OVERLOADED: dict[str, dict[str, Any]] = {"refused_seconds": {"refused_seconds": 0.0}}


@contextmanager
def trained(given: Any) -> Iterator[dict[str, Any]]:
    """A home with a model of one epoch, a key to it, and the images that are sent."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = image_folder(given.data, Path(scratch))
        samples, _ = read_image_folder(folder)
        home = Path(scratch) / "home"
        with own_service(home, GRAFT_ENGINES="torch") as client:
            with as_archive(folder) as archive, archive.open("rb") as file:
                created = client.upload("/v1/datasets", file, archive.stat().st_size, {"name": "bench"})
            watch_dataset(client, created["id"])
            asked = {"dataset": "bench", "backbone": given.backbone, "input_size": given.size, "epochs": 1}
            job = client.post("/v1/jobs", asked)
            model = str(watch_job(client, job["id"])["result"]["model_id"])
        images = [_small(sample.path, given.sent) for sample in samples if sample.split == "val"]
        yield {"home": str(home), "key": client.key, "model": model, "images": images}


def _small(path: Path, side: int) -> str:
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize((side, side)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def costs(tree: Path, given: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Return what bench.predict_calls found out in that tree, in its own environment."""
    python = tree / ".venv/bin/python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
    done = subprocess.run(
        [str(python if python.exists() else sys.executable), str(HERE / "bench/predict_calls.py")],
        input=json.dumps(given),
        env=environment | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "GRAFT_ENGINES": "torch"},
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    found: dict[str, list[list[float]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def low(blocks: list[list[float]], column: int) -> float:
    """The lower quartile of a column."""
    return round(statistics.quantiles([block[column] for block in blocks], n=4)[0], 1)


def table(found: dict[str, list[list[float]]]) -> dict[str, dict[str, float]]:
    """Each variant's costs, and what a call costs more than with all shortcuts."""
    columns = {"loop_us": 0, "process_us": 1, "call_us": 2, "late_us": 3}
    rows = {name: {told: low(one, column) for told, column in columns.items()} for name, one in found.items()}
    for row in rows.values():
        row["loop_more"] = round(row["loop_us"] / rows["all"]["loop_us"] - 1, 3)
        row["process_more"] = round(row["process_us"] / rows["all"]["process_us"] - 1, 3)
    return rows


def against(before: Path, home: dict[str, Any], rounds: int) -> dict[str, dict[str, float]]:
    """This tree and another one in turn: the costs of both."""
    found: dict[str, list[list[float]]] = {"all": [], "before": []}
    for number in range(rounds):
        for name, tree in (("all", HERE), ("before", before)):
            found[name] += costs(tree, home | {"variants": {name: None}})[name]
        note(f"round {number + 1}/{rounds}: {table(found)}")
    return table(found)


def main() -> None:
    parser = arguments(__doc__, size=32, rounds=3)
    parser.add_argument("--blocks", type=int, default=40, help="of calls, each variant; in each round with --before")
    parser.add_argument("--calls", type=int, default=64, help="of a block")
    parser.add_argument("--sent", type=int, default=32, help="side of the images that are sent, pixels")
    parser.add_argument("--before", type=Path, help="a checkout to compare with, in place of switching anything off")
    given = parser.parse_args()
    with trained(given) as home:
        single = home | {"blocks": given.blocks, "calls": given.calls, "at_once": 1, "queue": 256}
        together = single | {"calls": 256, "at_once": 16}
        crowded = single | {"calls": 1024, "at_once": 96, "queue": 64}
        if given.before:
            found = {"before": against(given.before.absolute(), single, given.rounds)}
        else:
            found = {
                "one_by_one": table(costs(HERE, single | {"variants": {"all": {}, **ONE_BY_ONE}})),
                "together": table(costs(HERE, together | {"variants": {"all": {}, **TOGETHER}})),
                "overloaded": table(costs(HERE, crowded | {"variants": {"all": {}, **OVERLOADED}})),
            }
    emit("predict_path", **found, backbone=given.backbone, size=given.size)


if __name__ == "__main__":
    main()
