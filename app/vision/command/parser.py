"""Defines the options of the command, by subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from app.vision.command.options import add_config_options
from app.vision.data.rowcache import DEFAULT_LIMIT

Run = Callable[[argparse.Namespace], int]


def parser_of(commands_run: Mapping[str, Run]) -> argparse.ArgumentParser:
    """Return the parser; the option `run` of what it reads is that of `commands_run` by the command's name."""
    parser = argparse.ArgumentParser("python -m app.vision", description="Fine-tune image classifiers and use them.")
    commands = parser.add_subparsers(required=True, metavar="train|find-rate|predict")

    train = commands.add_parser(
        "train",
        help="fine-tune a pretrained network on a folder of images",
        description="Fine-tune on FOLDER/class/image, or FOLDER/train/class/image beside val/ and test/.",
        usage="%(prog)s FOLDER [options]",
    )
    train.set_defaults(run=commands_run["train"])
    _add_training_options(train)
    train.add_argument("--out", type=Path, help="where the model, metrics.json and pictures go (default: FOLDER-model)")
    train.add_argument("--overwrite", action="store_true", help="replace a model that lies in --out")
    train.add_argument("--cache", type=Path, metavar="FOLDER", help="keep decoded images and features for later runs")
    train.add_argument(
        "--cache-gib",
        type=_size,
        default=DEFAULT_LIMIT / 2**30,
        metavar="X",
        help="at most so much; what was not used for longest goes first (default: %(default)g)",
    )
    train.add_argument(
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
    search.set_defaults(run=commands_run["find-rate"])
    _add_training_options(search)
    search.add_argument("--picture", type=Path, metavar="PNG", help="the curve (default: FOLDER-rates.png)")

    answer = commands.add_parser("predict", help="classify images with a trained model")
    answer.set_defaults(run=commands_run["predict"])
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
    config.add_argument(
        "--train",
        metavar="head|all|N",
        type=_stages,
        default=argparse.SUPPRESS,
        help="What learns: the new head, everything, or the head and the last N stages. (default: head)",
    )
    config.add_argument(
        "--base-model",
        type=Path,
        dest="base_path",
        metavar="MODEL",
        help="Start from this model (or its folder): its trunk, input size and, for the same classes, its head.",
    )
    add_config_options(config, without={"train", "last_stages", "base_model"})


def _stages(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text
