"""Compare frozen-trunk fine-tuning, end to end, with the fixed feature extractor of PyTorch's tutorial.

Ours is timed from nothing, with its defaults: weights, decoding, features, training (40 epochs of the head),
evaluation, the model file. The tutorial's loop is timed without its set-up, and starts from seed 0. Its epochs are
spread over the rounds: with the defaults, five rounds of five epochs are one whole run of 25, and its time is a
round's, times five. `--full` gives it a whole run in every round.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader
from torchvision import transforms

from app.vision.data.imagefolder import read_image_folder
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from bench.inputs import Quiet, image_folder, torchvision_network, weights_file
from bench.rounds import alternate, arguments, clock, compared, device, emit, spread

EPOCHS = 25
TARGETS = {1: 30.0, 2: 15.0}  # by the number of views


class Tutorial:
    """Train as pytorch.org/tutorials/beginner/transfer_learning_tutorial.html, "ConvNet as fixed feature extractor"."""

    def __init__(self, folder: Path, backbone: str, weights: Path, size: int, workers: int) -> None:
        normal = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
        drawn = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
        centred = [transforms.Resize(size * 256 // 224), transforms.CenterCrop(size)]
        data_transforms = {
            "train": transforms.Compose([*drawn, *normal]),
            "val": transforms.Compose([*centred, *normal]),
        }
        datasets = {
            phase: torchvision.datasets.ImageFolder(str(folder / phase), transform)
            for phase, transform in data_transforms.items()
        }
        self.loaders = {
            phase: DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers)
            for phase, dataset in datasets.items()
        }
        torch.manual_seed(0)
        self.sizes = {phase: len(dataset) for phase, dataset in datasets.items()}
        self.device = device()
        self.model = torchvision_network(backbone, weights, len(datasets["train"].classes)).to(self.device)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = name.startswith("fc.")
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = optim.SGD(self.model.get_submodule("fc").parameters(), lr=0.001, momentum=0.9)
        self.scheduler = lr_scheduler.StepLR(self.optimizer, step_size=7, gamma=0.1)
        self.best_accuracy = 0.0
        self.epochs_done = 0

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            for phase in ("train", "val"):
                self.model.train(phase == "train")
                corrects = torch.zeros((), dtype=torch.long, device=self.device)
                running_loss = 0.0
                for inputs, labels in self.loaders[phase]:
                    inputs, labels = inputs.to(self.device), labels.to(self.device)
                    self.optimizer.zero_grad()
                    with torch.set_grad_enabled(phase == "train"):
                        outputs = self.model(inputs)
                        predictions = outputs.argmax(1)
                        loss = self.criterion(outputs, labels)
                        if phase == "train":
                            loss.backward()
                            self.optimizer.step()
                    running_loss += loss.item() * inputs.size(0)
                    corrects += torch.sum(predictions == labels.data)
                if phase == "train":
                    self.scheduler.step()
                elif (accuracy := corrects.item() / self.sizes["val"]) > self.best_accuracy:
                    self.best_accuracy = accuracy
                    copy.deepcopy(self.model.state_dict())  # the tutorial saves the best model
            self.epochs_done += 1


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of this benchmark's options."""
    parser = arguments(__doc__)
    parser.add_argument("--views", type=int, default=1, help="augmented copies of each image; 1 is none")
    parser.add_argument("--tutorial-epochs", type=int, default=5, help="epochs of the tutorial's loop in a round")
    parser.add_argument("--workers", type=int, default=2, help="of the tutorial's DataLoader")
    parser.add_argument("--full", action="store_true", help="a whole run of the tutorial in every round")
    return parser


def configuration(options: argparse.Namespace, seed: int) -> TrainConfig:
    """Return our side's training: all defaults, but for the augmentation that comes with several views."""
    views: dict[str, Any] = {"augmentation": "none"}
    if options.views > 1:
        views = {"augmentation": "standard", "views": options.views}
    return TrainConfig(options.backbone, input_size=options.size, seed=seed, **views)


def main() -> None:
    options = options_parser().parse_args()
    weights = weights_file(options.backbone, options.weights)
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = image_folder(options.data, Path(scratch))
        samples, classes = read_image_folder(folder)
        continued = Tutorial(folder, options.backbone, weights, options.size, options.workers)
        part = EPOCHS if options.full else options.tutorial_epochs

        def graftwork(number: int) -> float:
            config = configuration(options, number)

            def run() -> None:
                with tempfile.TemporaryDirectory(dir=scratch) as workdir:
                    result = fit(config, samples, classes, weights=weights, workdir=Path(workdir), observer=Quiet())
                ours.append(result.metrics["val"]["accuracy"])

            return clock(run)

        def tutorial(number: int) -> float:
            run = continued
            if options.full:
                run = Tutorial(folder, options.backbone, weights, options.size, options.workers)
            seconds = clock(lambda: run.train(part))
            theirs.append(run.best_accuracy)
            return seconds * EPOCHS / part

        fast, slow = alternate(graftwork, tutorial, options.rounds)
    trained = EPOCHS if options.full else continued.epochs_done
    accuracy = statistics.median(theirs) if options.full else theirs[-1]
    figures = compared(slow, fast)
    # A part of the tutorial's run says nothing about where it ends.
    no_lower = statistics.median(ours) >= accuracy if trained >= EPOCHS else None
    target = TARGETS.get(options.views)
    emit(
        "frozen_trunk",
        **figures,
        target=target,
        met=target is None or figures["ratio"] >= target,
        views=options.views,
        graftwork_s=spread(fast),
        tutorial_s=spread(slow),
        tutorial=f"{part} of {EPOCHS} epochs a round" + ("" if options.full else f", time scaled by {EPOCHS / part:g}"),
        graftwork_accuracies=[round(one, 4) for one in ours],
        accuracy={"graftwork": round(statistics.median(ours), 4), "tutorial": round(accuracy, 4)},
        tutorial_epochs_trained=trained,
        accuracy_no_lower=no_lower,
        backbone=options.backbone,
        input_size=options.size,
        images=len(samples),
        rounds=options.rounds,
    )
    if no_lower is False:
        raise SystemExit("the accuracy is lower than the tutorial's: the times do not compare like with like")


if __name__ == "__main__":
    main()
