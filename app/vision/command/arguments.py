"""The arguments of `python -m app.vision`: train, find-rate and predict."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from app.vision.command.options import add_config_options, what_learns
from app.vision.data.rowcache import DEFAULT_LIMIT
from app.vision.settings.config import TrainConfig
from app.vision.settings.hyper_parameter import hyper_parameters

Run = Callable[[argparse.Namespace], int]


def make_parser(*, train: Run, find_rate: Run, predict: Run) -> argparse.ArgumentParser:
    """Return the command line's parser; a command sets `run` to its function."""
    parser = argparse.ArgumentParser("python -m app.vision", description="Fine-tune image classifiers and use them.")
    commands = parser.add_subparsers(required=True, metavar="train|find-rate|predict")

    training = commands.add_parser(
        "train",
        help="fine-tune a pretrained network on a folder of images",
        description="Fine-tune on FOLDER/class/image, or FOLDER/train/class/image beside val/ and test/.",
        usage="%(prog)s FOLDER [options]",
    )
    training.set_defaults(run=train)
    _add_training_options(training)
    training.add_argument(
        "--out", type=Path, help="where the model, metrics.json and pictures go (default: FOLDER-model)"
    )
    training.add_argument("--overwrite", action="store_true", help="replace a model that lies in --out")
    training.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep decoded images and features for later runs"
    )
    training.add_argument(
        "--cache-gib",
        type=_size,
        default=DEFAULT_LIMIT / 2**30,
        metavar="X",
        help="at most so much; what was not used for longest goes first (default: %(default)g)",
    )
    training.add_argument(
        "--resume",
        type=Path,
        metavar="PATH",
        help="go on with an interrupted run: its --out, or a checkpoint; the learning rate may be another",
    )

    search = commands.add_parser(
        "find-rate",
        help="try learning rates for such a training and suggest one",
        description="A range test: a hundred steps on FOLDER at rates that climb; nothing is kept but the curve.",
        usage="%(prog)s FOLDER [options]",
    )
    search.set_defaults(run=find_rate)
    _add_training_options(search)
    search.add_argument("--picture", type=Path, metavar="PNG", help="the curve (default: FOLDER-rates.png)")

    answer = commands.add_parser("predict", help="classify images with a trained model")
    answer.set_defaults(run=predict)
    answer.add_argument("model", type=Path, metavar="MODEL", help="model.safetensors, or the folder it lies in")
    answer.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    answer.add_argument("--top-k", type=int, default=3, metavar="N", help="classes to name for each (default: 3)")
    answer.add_argument("--json", action="store_true", help="one JSON document a line")
    return parser


def _size(text: str) -> float:
    size = float(text)
    if not 0 < size < 2**20:
        raise argparse.ArgumentTypeError(f"{text} GiB; use more than 0")
    return size


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--val-fraction", type=float, default=0.2, metavar="X", help="share to validate on, if drawn")
    parser.add_argument("--test-fraction", type=float, default=0.0, metavar="X", help="share to test on, if drawn")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="pretrained weights, or a folder with the file")
    parser.add_argument("--no-download", action="store_true", help="never fetch weights from the network")
    config = parser.add_argument_group("what and how to train")
    config.add_argument("--train", metavar="head|all|N", type=_stages, default=argparse.SUPPRESS, help=what_learns())
    base_model = hyper_parameters(TrainConfig)["base_model"]
    meaning = f"{base_model.meaning} A file, or its folder."
    config.add_argument("--base-model", type=Path, dest="base_path", metavar="MODEL", help=meaning)
    add_config_options(config, without={"train", "last_stages", "base_model"})


def _stages(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text
