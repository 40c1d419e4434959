"""The command `train FOLDER` fine-tunes on a folder of images, `find-rate FOLDER` suggests a learning rate."""

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

from app.vision.backbones.weights import WeightStore
from app.vision.command.arguments import make_parser
from app.vision.command.beginning import config_of, learning, weights_of
from app.vision.command.options import option_name
from app.vision.command.predict import predict
from app.vision.command.results import write_results
from app.vision.command.terminal import FAILED, INTERRUPTED, MISUSED, Terminal, fail, say
from app.vision.data.imagefolder import read_image_folder
from app.vision.data.rowcache import RowCache
from app.vision.data.samples import Sample
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
from app.vision.training.checkpoint_folder import CheckpointFolder
from app.vision.training.result import FitResult

CHECKPOINTS = "checkpoints"  # the folder below --out in which an unfinished run keeps them


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code: 0, 1 for a failure, 2 for wrong options, 130 for an interrupted run."""
    options = make_parser(train=_train, find_rate=_find_rate, predict=predict).parse_args(arguments)
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


def _train(options: argparse.Namespace) -> int:
    config = config_of(options)
    samples, classes = read_image_folder(
        options.folder, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=config.seed
    )
    out: Path = options.out or Path(f"{options.folder.resolve().name}-model")
    if (out / "model.safetensors").exists() and not options.overwrite:
        raise InvalidData(f"{out} already holds a model: name another folder with --out, or give --overwrite.")
    weights = weights_of(options)
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
    say(f"{shown} images of {len(classes)} classes; backbone {config.backbone}, training {learning(config)}")
    began = time.monotonic()
    cache = RowCache(options.cache, int(options.cache_gib * 2**30)) if options.cache else None
    result = _fit(weights, config, samples, classes, out, resume, cache)
    if result is None:
        return INTERRUPTED
    if speaks():
        write_results(out, result, samples, time.monotonic() - began)
    return 0


def _checkpoint_to_resume(given: Path | None) -> Path | None:
    """Return the newest whole checkpoint of a folder; a file is taken as it is."""
    if given is None or not given.is_dir():
        return given
    folder = given / CHECKPOINTS if (given / CHECKPOINTS).is_dir() else given

    def warn(path: Path, error: DamagedArtefact) -> None:
        print(f"warning: {error} Trying the checkpoint before it.", file=sys.stderr)

    found = CheckpointFolder(folder).newest_whole(warn)
    say(f"going on from {found}")
    return found


def _find_rate(options: argparse.Namespace) -> int:
    from app.vision.training.fit import find_rate
    from app.vision.training.pictures import rate_curve, write_pictures

    config = config_of(options)
    samples, classes = read_image_folder(
        options.folder, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=config.seed
    )
    picture: Path = options.picture or Path(f"{options.folder.resolve().name}-rates.png")
    with StopSignals() as signals, tempfile.TemporaryDirectory(prefix="graftwork-") as scratch:
        observer = Terminal(signals, CheckpointFolder(Path(scratch) / CHECKPOINTS))
        try:
            found = find_rate(
                config, samples, classes, weights=weights_of(options), workdir=Path(scratch), observer=observer
            )
        except Stopped:
            return fail("interrupted.", INTERRUPTED)
    write_pictures(picture.parent, {picture.name: lambda: rate_curve(found)})
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
    """Return None if the run was interrupted.

    Scratch files lie in `out` meanwhile: renaming needs the same file system.
    """
    from app.vision.training.fit import fit

    kept = CheckpointFolder(out / CHECKPOINTS)
    for left in [] if is_shared() else out.glob(".work-*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with StopSignals() as signals, shared_folder(out) as scratch:
        observer = Terminal(signals, kept)
        try:
            result = fit(
                config,
                samples,
                classes,
                weights=weights,
                workdir=scratch,
                observer=observer,
                resume=resume,
                cache=cache,
            )
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
