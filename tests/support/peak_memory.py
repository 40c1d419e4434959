"""A training in a process of its own, which prints its peak of memory: `python -m tests.support.peak_memory JSON`."""

import json
import sys
import tempfile
from pathlib import Path

import torch

from app.vision.backbones.weights import BUNDLED
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from tests.support.pictures import CLASSES, Recorder, make_samples


def main() -> None:
    torch.set_num_threads(1)
    config = TrainConfig.from_dict(json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(Path(folder), train=64, val=2, test=0)
        weights = BUNDLED / "resnet18-tiny64.safetensors"
        fit(config, samples, CLASSES, weights=weights, workdir=Path(folder) / "run", observer=Recorder())
    status = Path("/proc/self/status").read_text()
    print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")))


if __name__ == "__main__":
    main()
