"""The command: `train FOLDER` fine-tunes on a folder of images, `predict MODEL IMAGE...` classifies."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.vision.backbones.catalogue import default_backbone
from app.vision.backbones.weights import WeightStore
from app.vision.command.options import add_config_options, config_values, option_name, what_learns
from app.vision.command.predict import model_file, predict
from app.vision.command.results import write_results
from app.vision.command.terminal import FAILED, INTERRUPTED, MISUSED, Terminal, fail, say
from app.vision.data.imagefolder import read_image_folder
from app.vision.data.rowcache import DEFAULT_LIMIT, RowCache
from app.vision.errors import (
    DamagedArtefact,
    Diverged,
    InvalidConfig,
    InvalidData,
    Stopped,
    VisionError,
    WeightsUnavailable,
)
from app.vision.runtime.launch import is_shared, launched, shared_folder, speaks
from app.vision.runtime.stopping import StopSignals
from app.vision.settings.config import TrainConfig
from app.vision.settings.hyper_parameter import hyper_parameters
from app.vision.training.checkpoint_folder import CheckpointFolder
from app.vision.training.run import FitResult, Sample

CHECKPOINTS = "checkpoints"  # the folder below --out in which an unfinished run keeps them


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code: 0, 1 for a failure, 2 for wrong options, 130 for an interrupted run."""
    options = _parser().parse_args(arguments)
    try:
        with launched():
            code: int = options.run(options)
    except InvalidConfig as error:
        flag = "--train" if error.field == "last_stages" else option_name(error.field)
        return fail(f"{flag}: {str(error).removeprefix(f'{error.field}: ')}", MISUSED)
    except WeightsUnavailable as error:
        return fail(f"{error} Or name the file or its folder with --weights.", FAILED)
    except BrokenPipeError:  # `... | head` has read enough; what Python flushes at exit must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (VisionError, OSError) as error:
        return fail(str(error), FAILED)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m app.vision", description="Fine-tune image classifiers and use them.")
    commands = parser.add_subparsers(required=True, metavar="train|find-rate|predict")

    train = commands.add_parser(
        "train",
        help="fine-tune a pretrained network on a folder of images",
        description="Fine-tune on FOLDER/class/image, or FOLDER/train/class/image beside val/ and test/.",
        usage="%(prog)s FOLDER [options]",
    )
    train.set_defaults(run=_train)
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
    search.set_defaults(run=_find_rate)
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


def _train(options: argparse.Namespace) -> int:
    config = _config(options)
    samples, classes = read_image_folder(
        options.folder, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=config.seed
    )
    out: Path = options.out or Path(f"{options.folder.resolve().name}-model")
    if (out / "model.safetensors").exists() and not options.overwrite:
        raise InvalidData(f"{out} already holds a model: name another folder with --out, or give --overwrite.")
    weights = _weights(options)
    kept = CheckpointFolder(out / CHECKPOINTS)
    if options.resume is None and kept.newest_first():
        if not options.overwrite:
            raise InvalidData(
                f"{out} holds checkpoints of an unfinished run: go on with --resume {out}, name another folder with"
                " --out, or give --overwrite."
            )
        kept.clear()
    resume = _checkpoint_to_resume(options.resume)
    out.mkdir(parents=True, exist_ok=True)
    counts = Counter(sample.split for sample in samples)
    shown = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test") if counts[split])
    say(f"{shown} images of {len(classes)} classes; backbone {config.backbone}, training {_learning(config)}")
    began = time.monotonic()
    cache = RowCache(options.cache, int(options.cache_gib * 2**30)) if options.cache else None
    result = _fit(weights, config, samples, classes, out, resume, cache)
    if result is None:
        return INTERRUPTED
    if speaks():
        write_results(out, result, samples, classes, time.monotonic() - began)
    return 0


def _checkpoint_to_resume(given: Path | None) -> Path | None:
    """The newest whole checkpoint of a folder; a file is taken as it is."""
    if given is None or not given.is_dir():
        return given
    folder = given / CHECKPOINTS if (given / CHECKPOINTS).is_dir() else given

    def warn(path: Path, error: DamagedArtefact) -> None:
        print(f"warning: {error} Trying the checkpoint before it.", file=sys.stderr)

    found = CheckpointFolder(folder).newest_whole(warn)
    say(f"going on from {found}")
    return found


def _weight_store(options: argparse.Namespace) -> WeightStore:
    import torch.hub

    folder = options.weights if options.weights and options.weights.is_dir() else None
    # torchvision's own cache: weights that another program has fetched are not fetched again.
    return WeightStore(folder, Path(torch.hub.get_dir()) / "checkpoints", download=not options.no_download)


def _config(options: argparse.Namespace) -> TrainConfig:
    values = config_values(options)
    if options.base_path is not None:
        values = _from_base(model_file(options.base_path), values)
    elif "backbone" not in values:
        values["backbone"] = default_backbone(_weight_store(options))
    if isinstance(values.get("train"), int):
        values |= {"train": "last_stages", "last_stages": values["train"]}
    config = TrainConfig.from_dict(values)
    config.resolve()  # says now what it would say after minutes of decoding
    return config


def _from_base(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, with the base model's backbone, head and input size where nothing was."""
    from app.vision.artefacts.base_model import file_sha256
    from app.vision.artefacts.model_file import read_model_document

    document = read_model_document(path)
    if given.get("backbone", document["backbone"]) != document["backbone"]:
        raise InvalidConfig("backbone", f"{given['backbone']!r}, but {path} is a {document['backbone']}; leave it out.")
    inherited = {
        "backbone": document["backbone"],
        "head": document["head"],
        "input_size": document["preprocessing"]["crop"],
        "base_model": file_sha256(path),
    }
    return inherited | given


def _learning(config: TrainConfig) -> str:
    return {"head": "the head", "all": "everything"}.get(config.train, f"the last {config.last_stages} stages")


def _weights(options: argparse.Namespace) -> Path | WeightStore:
    """What the run starts from."""
    if options.base_path is not None:
        return model_file(options.base_path)
    if options.weights is not None and not options.weights.exists():
        raise InvalidData(f"--weights {options.weights}: there is no such file or folder.")
    return options.weights if options.weights and options.weights.is_file() else _weight_store(options)


def _find_rate(options: argparse.Namespace) -> int:
    from app.vision.tasks.classify.pictures import rate_curve, write_figures
    from app.vision.training.fit import find_rate

    config = _config(options)
    samples, classes = read_image_folder(
        options.folder, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=config.seed
    )
    picture: Path = options.picture or Path(f"{options.folder.resolve().name}-rates.png")
    with StopSignals() as signals, tempfile.TemporaryDirectory(prefix="graftwork-") as scratch:
        observer = Terminal(signals, CheckpointFolder(Path(scratch) / CHECKPOINTS))
        try:
            found = find_rate(
                config, samples, classes, weights=_weights(options), workdir=Path(scratch), observer=observer
            )
        except Stopped:
            return fail("interrupted.", INTERRUPTED)
    write_figures(picture.parent, {picture.name: rate_curve(found)})
    say(f"suggested: --learning-rate {found.suggestion:.3g}")
    say(f"wrote the curve of {len(found.rates)} rates to {picture}")
    return 0


def _fit(
    weights: Path | WeightStore,
    config: TrainConfig,
    samples: Sequence[Sample],
    classes: Sequence[str],
    out: Path,
    resume: Path | None,
    cache: RowCache | None,
) -> FitResult | None:
    """None if the run was interrupted. Scratch files lie in `out` meanwhile: renaming needs the same file system."""
    from app.vision.training.fit import fit

    kept = CheckpointFolder(out / CHECKPOINTS)
    for left in [] if is_shared() else out.glob(".work-*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with StopSignals() as signals, shared_folder(out) as scratch:
        observer = Terminal(signals, kept)
        try:
            result = fit(
                config, samples, classes,
                weights=weights, workdir=scratch, observer=observer, resume=resume, cache=cache,
            )  # fmt: skip
        except Stopped as stopped:
            saved = f"; go on with --resume {out}" if stopped.checkpoint_written else " before the first step"
            fail(f"interrupted{saved}.", INTERRUPTED)
            return None
        except Diverged as error:
            if kept.newest_first():
                raise VisionError(f"{error} Go on from it with --resume {out} --learning-rate X.") from error
            raise
        if speaks():
            result.model_path.replace(out / "model.safetensors")
            kept.clear()
    return result
