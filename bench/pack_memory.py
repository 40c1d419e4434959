"""Compare the peak memory of a training on a pack four times as large as another's, each in its own process.

`ratio` compares peak resident memory, pages of the mapped pack included, although the system takes those back when
it needs them; `ratio_without_files` compares what only swapping could take back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from app.vision.data.imagefolder import read_image_folder
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from bench.inputs import CLASSES, Quiet, textured, weights_file
from bench.rounds import alternate, arguments, compared, emit, spread

TIMES = 4
TARGET = 1.1
MIB = 2**20


def make(folder: Path, images: int) -> Path:
    """Write small distinct pictures: only the pack's size matters, and it does not depend on theirs."""
    for split, count in (("train", images), ("val", 32)):
        for number in range(count):
            label = number % len(CLASSES)
            place = folder / split / CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            textured(label, np.random.default_rng([number, count]), 64, 64).save(place / f"{number:06d}.jpg")
    return folder


def child(folder: Path, options: dict[str, str | int]) -> None:
    """Train, and print the peaks of this process in bytes."""
    peak = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, _status("RssAnon"))

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    config = TrainConfig(
        str(options["backbone"]), train="last_stages", epochs=int(options["epochs"]), input_size=int(options["size"])
    )
    samples, classes = read_image_folder(folder)
    weights = Path(str(options["weights"]))
    with tempfile.TemporaryDirectory() as scratch:
        fit(config, samples, classes, weights=weights, workdir=Path(scratch), observer=Quiet())
    done.set()
    watcher.join()
    print(json.dumps({"rss": _status("VmHWM"), "anonymous": peak}))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=1000, help="training images of the smaller pack")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--child", nargs=2, help="used by the benchmark itself")
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), json.loads(options.child[1]))
        return
    settings = {
        "backbone": options.backbone,
        "weights": str(weights_file(options.backbone, options.weights)),
        "size": options.size,
        "epochs": options.epochs,
    }
    anonymous: dict[int, list[float]] = {1: [], TIMES: []}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {times: make(Path(scratch) / str(times), times * options.images) for times in (1, TIMES)}

        def peak(times: int) -> float:
            command = [sys.executable, "-m", "bench.pack_memory", "--child", str(folders[times]), json.dumps(settings)]
            answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            anonymous[times].append(answer["anonymous"] / MIB)
            return float(answer["rss"]) / MIB

        large, small = alternate(lambda _: peak(TIMES), lambda _: peak(1), options.rounds)
    figures = compared(large, small)
    emit(
        "pack_memory",
        **figures,
        target=TARGET,
        met=figures["ratio"] <= TARGET,
        ratio_without_files=compared(anonymous[TIMES], anonymous[1])["ratio"],
        large_mib=spread(large, 0),
        small_mib=spread(small, 0),
        anonymous_mib={"large": spread(anonymous[TIMES], 0), "small": spread(anonymous[1], 0)},
        pack_mib=[round(times * options.images * options.size**2 * 3 / MIB) for times in (TIMES, 1)],
        backbone=options.backbone,
        input_size=options.size,
        epochs=options.epochs,
        rounds=options.rounds,
    )


if __name__ == "__main__":
    main()
