"""One of two processes that train together: runs what the tests of ranks look at, and writes down how it ended.

`python -m tests.support.two_ranks SAMPLES OUT`, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed import PrefixStore
from torch.distributed.rendezvous import rendezvous

from app.vision.data.samples import Sample
from app.vision.errors import Stopped, VisionError
from app.vision.runtime import ranks
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from tests.support.pictures import CLASSES, Recorder
from tests.support.runs import WEIGHTS

PLAIN: dict[str, Any] = {"precision": "float32", "optimizer": "sgd", "epochs": 2, "batch_size": 8}
# 24 images in batches of 4, two a step: three steps an epoch; each rank has half of every batch.
STAGES = PLAIN | {
    "train": "last_stages",
    "batch_size": 4,
    "accumulate": 2,
    "ema": 0.9,
    "mixup": 0.3,
    "cutmix": 1.0,
    "clip_norm": 5.0,
    "imbalance": "sampling",
    "augmentation": "light",
}
RUNS = {
    "head": PLAIN | {"train": "head", "augmentation": "light", "views": 2},
    "stages": STAGES,
    "unfrozen": PLAIN | {"train": "last_stages", "last_stages": 2, "unfreeze_every": 1, "epochs": 3, "batch_size": 7},
}
STOP_AFTER = 4  # steps


class Asked(Recorder):
    """A second rank's: it is told nothing, and only asked whether to stop, after every step."""

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_after


class Saboteur(Asked):
    """Does something to its process in the middle of the training."""

    def __init__(self, deed: str | None) -> None:
        super().__init__(stop_after=2 if deed else None)
        self.deed = deed

    def should_stop(self) -> bool:
        if super().should_stop():
            if self.deed == "memory":
                raise torch.OutOfMemoryError
            if self.deed == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return False


def main(samples_file: Path, out: Path) -> None:
    torch.set_num_threads(1)
    samples = [Sample(Path(path), label, split) for path, label, split in json.loads(samples_file.read_text())]
    store, rank, count = next(rendezvous("env://"))
    ended: dict[str, str] = {}

    def run(name: str, fields: dict[str, Any], recorder: Recorder | None = None, resume: Path | None = None) -> None:
        observer = recorder or Recorder()
        config = TrainConfig("resnet18-tiny64", input_size=32, **fields)
        try:
            result = fit(
                config, samples, CLASSES, weights=WEIGHTS, workdir=out / name, observer=observer, resume=resume
            )
        except Stopped:
            ended[name] = "stopped"
            return
        ended[name] = "done"
        (out / f"{name}-{rank}.json").write_text(
            json.dumps({"epochs": observer.epochs, "history": result.history, "reports": len(observer.phases)})
        )

    def sabotage(name: str, deed: str) -> None:
        try:
            with ranks.joined(PrefixStore(name, store), rank, count):
                run(name, STAGES, Saboteur(deed if rank == 1 else None))
        except VisionError as error:
            ended[name] = f"{type(error).__name__}: {error}"

    with ranks.joined(PrefixStore("runs", store), rank, count):
        for name, fields in RUNS.items():
            run(name, fields)
        run("again", RUNS["stages"])
        # Only the second rank is asked to stop, and only the first one has the checkpoint.
        kept = out / "kept.safetensors"
        run("stopped", RUNS["stages"], Asked(STOP_AFTER) if rank == 1 else Recorder(keep=kept))
        run("resumed", RUNS["stages"], resume=kept if rank == 0 else None)
    sabotage("memory", "memory")
    (out / f"ended-{rank}.json").write_text(json.dumps(ended))
    sabotage("kill", "kill")
    (out / f"ended-{rank}.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
