"""Compare full fine-tuning, end to end, with a loop in the manner of torchvision's reference training script.

Both train the same number of epochs from the same weights with SGD, batches of 32 and a cosine schedule, and validate
after every epoch. The reference decodes and augments each sample in a DataLoader, in float32.

On a CPU `profile` tells what there is to win: the multiplications a second (in 1e9) of training and validating on
either side, a training image being three passes, and of products of large matrices in float32 and bfloat16, which is
about all that these cores can do. The first side also looks at all images once more in float32, as predictions do.
"""

from __future__ import annotations

import statistics
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from app.vision.data.imagefolder import read_image_folder
from app.vision.data.samples import Sample
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from bench.arithmetic import matrix_multiplications, multiplications
from bench.inputs import Quiet, image_folder, torchvision_network, weights_file
from bench.rounds import alternate, arguments, clock, compared, device, emit, spread

BATCH, RATE, DECAY = 32, 0.01, 1e-4
TARGET = 2.5
TOLERANCE = 0.03  # a few images of a validation set of 150


def reference(folder: Path, backbone: str, weights: Path, size: int, epochs: int, workers: int, seed: int) -> float:
    """Train as references/classification does; return the best validation accuracy."""
    torch.manual_seed(seed)
    normal = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    floats = [v2.PILToTensor(), v2.ToDtype(torch.float, scale=True), normal]
    crop = v2.RandomResizedCrop(size, antialias=True)
    train_set = torchvision.datasets.ImageFolder(
        str(folder / "train"), v2.Compose([crop, v2.RandomHorizontalFlip(0.5), *floats])
    )
    val_set = torchvision.datasets.ImageFolder(
        str(folder / "val"), v2.Compose([v2.Resize(size * 256 // 224, antialias=True), v2.CenterCrop(size), *floats])
    )
    train_loader = DataLoader(
        train_set, batch_size=BATCH, shuffle=True, num_workers=workers, pin_memory=torch.cuda.is_available()
    )
    val_loader = DataLoader(val_set, batch_size=BATCH, num_workers=workers, pin_memory=torch.cuda.is_available())
    place = device()
    model = torchvision_network(backbone, weights, len(train_set.classes)).to(place)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    best = 0.0
    for _ in range(epochs):
        model.train()
        for image, target in train_loader:
            image, target = image.to(place), target.to(place)
            output = model(image)
            loss = criterion(output, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            (output.argmax(1) == target).float().mean().item()  # its metric logger does
            loss.item()
        schedule.step()
        model.eval()
        right = 0
        with torch.inference_mode():
            for image, target in val_loader:
                right += int((model(image.to(place)).argmax(1) == target.to(place)).sum())
        best = max(best, right / len(val_set))
    return best


def _profile(
    options: Namespace, weights: Path, samples: Sequence[Sample], fast: float, slow: float
) -> dict[str, float] | None:
    if device().type != "cpu":
        return None
    network = torchvision_network(options.backbone, weights, 2).eval()
    image = multiplications(network, lambda: network(torch.zeros(1, 3, options.size, options.size)))
    passes = options.epochs * sum(3 if sample.split == "train" else 1 for sample in samples)
    return {
        "image": round(image, 2),
        "graftwork": round(image * passes / fast),
        "reference": round(image * passes / slow),
        "float32_matrices": round(matrix_multiplications()),
        "bfloat16_matrices": round(matrix_multiplications(torch.bfloat16)),
    }


def options_parser() -> ArgumentParser:
    """Return the parser of this benchmark's options."""
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="of the reference's DataLoader")
    return parser


def configuration(options: Namespace, seed: int) -> TrainConfig:
    """Return our side's training, with the reference's optimiser, rate, decay, batch and augmentation."""
    return TrainConfig(
        options.backbone,
        train="all",
        epochs=options.epochs,
        batch_size=BATCH,
        optimizer="sgd",
        learning_rate=RATE,
        weight_decay=DECAY,
        augmentation="standard",
        input_size=options.size,
        seed=seed,
    )


def main() -> None:
    options = options_parser().parse_args()
    weights = weights_file(options.backbone, options.weights)
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = image_folder(options.data, Path(scratch))
        samples, classes = read_image_folder(folder)

        def graftwork(number: int) -> float:
            config = configuration(options, number)

            def run() -> None:
                with tempfile.TemporaryDirectory(dir=scratch) as workdir:
                    result = fit(config, samples, classes, weights=weights, workdir=Path(workdir), observer=Quiet())
                ours.append(result.metrics["val"]["accuracy"])

            return clock(run)

        def torchvision_reference(number: int) -> float:
            return clock(
                lambda: theirs.append(
                    reference(folder, options.backbone, weights, options.size, options.epochs, options.workers, number)
                )
            )

        fast, slow = alternate(graftwork, torchvision_reference, options.rounds)
        profile = _profile(options, weights, samples, statistics.median(fast), statistics.median(slow))
    figures = compared(slow, fast)
    accuracies = statistics.median(ours), statistics.median(theirs)
    equal = accuracies[0] >= accuracies[1] - TOLERANCE
    emit(
        "full_finetune",
        **figures,
        target=TARGET,
        met=figures["ratio"] >= TARGET,
        graftwork_s=spread(fast),
        reference_s=spread(slow),
        accuracy={"graftwork": round(accuracies[0], 4), "reference": round(accuracies[1], 4)},
        accuracy_tolerance=TOLERANCE,
        accuracy_equal=equal,
        profile=profile,
        epochs=options.epochs,
        backbone=options.backbone,
        input_size=options.size,
        images=len(samples),
        rounds=options.rounds,
    )
    if not equal:
        raise SystemExit("the accuracies differ: the times do not compare like with like")


if __name__ == "__main__":
    main()
