"""The command: `train FOLDER` fine-tunes on a folder of images, `predict MODEL IMAGE...` classifies."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.vision.backbones import default_backbone
from app.vision.command_options import add_config_options, config_values, option_name
from app.vision.config import TrainConfig
from app.vision.errors import InvalidConfig, InvalidData, Stopped, VisionError, WeightsUnavailable
from app.vision.imagefolder import read_image_folder
from app.vision.launch import launched, shared_folder, speaks
from app.vision.rowcache import DEFAULT_LIMIT, RowCache
from app.vision.run import FitResult, Sample
from app.vision.stopping import StopSignals
from app.vision.weights import WeightStore

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
NOTE_EVERY_S = 10.0  # a phase that takes long says how far it is


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code: 0, 1 for a failure, 2 for wrong options, 130 for an interrupted run."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except InvalidConfig as error:
        flag = "--train" if error.field == "last_stages" else option_name(error.field)
        return _fail(f"{flag}: {str(error).removeprefix(f'{error.field}: ')}", MISUSED)
    except WeightsUnavailable as error:
        return _fail(f"{error} Or name the file or its folder with --weights.", FAILED)
    except BrokenPipeError:  # `... | head` has read enough; what Python flushes at exit must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (VisionError, OSError) as error:
        return _fail(str(error), FAILED)
    return code


def _fail(message: str, code: int) -> int:
    if speaks():
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m app.vision", description="Fine-tune image classifiers and use them.")
    commands = parser.add_subparsers(required=True, metavar="train|predict")

    train = commands.add_parser(
        "train",
        help="fine-tune a pretrained network on a folder of images",
        description="Fine-tune on FOLDER/class/image, or FOLDER/train/class/image beside val/ and test/.",
    )
    train.set_defaults(run=_train)
    train.add_argument("folder", type=Path, metavar="FOLDER")
    train.add_argument("--out", type=Path, help="where the model, metrics.json and pictures go (default: FOLDER-model)")
    train.add_argument("--overwrite", action="store_true", help="replace a model that lies in --out")
    train.add_argument("--val-fraction", type=float, default=0.2, metavar="X", help="share to validate on, if drawn")
    train.add_argument("--test-fraction", type=float, default=0.0, metavar="X", help="share to test on, if drawn")
    train.add_argument("--weights", type=Path, metavar="PATH", help="the pretrained weights, or a folder with the file")
    train.add_argument("--no-download", action="store_true", help="never fetch weights from the network")
    train.add_argument("--cache", type=Path, metavar="FOLDER", help="keep decoded images and features for later runs")
    train.add_argument(
        "--cache-gib", type=_size, default=DEFAULT_LIMIT / 2**30, metavar="X",
        help="at most so much; what was not used for longest goes first (default: %(default)g)",
    )  # fmt: skip
    train.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="go on with an interrupted run")
    config = train.add_argument_group("what and how to train")
    config.add_argument(
        "--train", metavar="head|all|N", type=_stages, default=argparse.SUPPRESS,
        help="what learns: the new head, everything, or the head and the last N stages (default: head)",
    )  # fmt: skip
    add_config_options(config, without={"train", "last_stages"})

    predict = commands.add_parser("predict", help="classify images with a trained model")
    predict.set_defaults(run=_predict)
    predict.add_argument("model", type=Path, metavar="MODEL", help="model.safetensors, or the folder it lies in")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    predict.add_argument("--top-k", type=int, default=3, metavar="N", help="classes to name for each (default: 3)")
    predict.add_argument("--json", action="store_true", help="one JSON document a line")
    return parser


def _size(text: str) -> float:
    size = float(text)
    if not 0 < size < 2**20:
        raise argparse.ArgumentTypeError(f"{text} GiB; use more than 0")
    return size


def _stages(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text


def _train(options: argparse.Namespace) -> int:
    """Alone, or as one of the processes that `torchrun -m app.vision train` has started."""
    with launched():
        return _train_here(options)


def _train_here(options: argparse.Namespace) -> int:
    config = _config(options)
    samples, classes = read_image_folder(
        options.folder, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=config.seed
    )
    out: Path = options.out or Path(f"{options.folder.resolve().name}-model")
    if (out / "model.safetensors").exists() and not options.overwrite:
        raise InvalidData(f"{out} already holds a model: name another folder with --out, or give --overwrite.")
    if options.weights is not None and not options.weights.exists():
        raise InvalidData(f"--weights {options.weights}: there is no such file or folder.")
    out.mkdir(parents=True, exist_ok=True)
    counts = Counter(sample.split for sample in samples)
    shown = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test") if counts[split])
    _say(f"{shown} images of {len(classes)} classes; backbone {config.backbone}, training {_learning(config)}")
    began = time.monotonic()
    result = _fit(options, config, samples, classes, out)
    if result is None:
        return INTERRUPTED
    if speaks():
        _write_results(out, result, samples, classes, time.monotonic() - began)
    return 0


def _weight_store(options: argparse.Namespace) -> WeightStore:
    import torch.hub

    folder = options.weights if options.weights and options.weights.is_dir() else None
    # torchvision's own cache: weights that another program has fetched are not fetched again.
    return WeightStore(folder, Path(torch.hub.get_dir()) / "checkpoints", download=not options.no_download)


def _config(options: argparse.Namespace) -> TrainConfig:
    values = config_values(options)
    if "backbone" not in values:
        values["backbone"] = default_backbone(_weight_store(options))
    if isinstance(values.get("train"), int):
        values |= {"train": "last_stages", "last_stages": values["train"]}
    config = TrainConfig.from_dict(values)
    config.resolve()  # says now what it would say after minutes of decoding
    return config


def _learning(config: TrainConfig) -> str:
    return {"head": "the head", "all": "everything"}.get(config.train, f"the last {config.last_stages} stages")


def _fit(
    options: argparse.Namespace,
    config: TrainConfig,
    samples: Sequence[Sample],
    classes: Sequence[str],
    out: Path,
) -> FitResult | None:
    """None if the run was interrupted. Scratch files lie in `out` meanwhile: renaming needs the same file system."""
    from app.vision.training import fit

    cache = RowCache(options.cache, int(options.cache_gib * 2**30)) if options.cache else None
    weights = options.weights if options.weights and options.weights.is_file() else _weight_store(options)
    checkpoint = out / "checkpoint.safetensors"
    with StopSignals() as signals, shared_folder(out) as scratch:
        observer = Terminal(signals, checkpoint)
        try:
            result = fit(
                config, samples, classes,
                weights=weights, workdir=scratch, observer=observer, resume=options.resume,
                cache=cache,
            )  # fmt: skip
        except Stopped as stopped:
            saved = f"; go on with --resume {checkpoint}" if stopped.checkpoint_written else " before the first step"
            _fail(f"interrupted{saved}.", INTERRUPTED)
            return None
        if speaks():
            result.model_path.replace(out / "model.safetensors")
            checkpoint.unlink(missing_ok=True)
    return result


def _write_results(
    out: Path, result: FitResult, samples: Sequence[Sample], classes: Sequence[str], seconds: float
) -> None:
    from app.vision.reports import write_reports

    document = {
        "classes": list(classes),
        "images": Counter(sample.split for sample in samples),
        "config": result.config.to_dict(),
        "preprocessing": result.preprocessing.to_dict(),
        "best_epoch": result.best_epoch,
        "metrics": result.metrics,
        "history": result.history,
        "notes": list(result.notes),
        "duration_s": seconds,
    }
    temporary = out / f".metrics.json.{os.getpid()}"
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(out / "metrics.json")
    labels = {split: [sample.label for sample in samples if sample.split == split] for split in result.probabilities}
    pictures = write_reports(out, result, labels, classes)
    for split, scores in result.metrics.items():
        _print_scores(split, scores)
    for note in result.notes:
        _say(f"\nnote: {note}")
    _say(f"\nbest epoch {result.best_epoch}; done in {seconds:.0f} s")
    _say(f"wrote {', '.join(['model.safetensors', 'metrics.json', *(path.name for path in pictures)])} to {out}")


def _print_scores(split: str, scores: Mapping[str, Any]) -> None:
    _say(f"\n{split}: accuracy {scores['accuracy']:.3f}, log loss {scores['log_loss']:.3f}, {scores['samples']} images")
    width = max(len("class"), *(len(row["class"]) for row in scores["per_class"]))
    _say(f"  {'class':{width}}  precision  recall     f1  support")
    for row in scores["per_class"]:
        _say(
            f"  {row['class']:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:5.3f}"
            f"  {row['support']:7d}"
        )


class Terminal:
    """The observer that prints a line an epoch and keeps the last checkpoint of a run that is interrupted."""

    def __init__(self, signals: StopSignals, checkpoint: Path) -> None:
        self._signals = signals
        self._checkpoint = checkpoint
        self._phase = ""
        self._said_at = 0.0

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        now = time.monotonic()
        if phase == self._phase and (phase == "training" or now - self._said_at < NOTE_EVERY_S):
            return
        left = f", about {eta_s:.0f} s left" if phase == self._phase and eta_s is not None else ""
        if phase != self._phase or left:
            _say(f"{phase} ({fraction:.0%}{left})")
        self._phase, self._said_at = phase, now

    def epoch(self, metrics: dict[str, Any]) -> None:
        width = len(str(metrics["epochs"]))
        _say(
            f"epoch {metrics['epoch']:{width}}/{metrics['epochs']}"
            f"  train loss {metrics['train_loss']:.4f} accuracy {metrics['train_accuracy']:.3f}"
            f"  val loss {metrics['val_loss']:.4f} accuracy {metrics['val_accuracy']:.3f}"
            f"  {metrics['images_per_s']:.0f} img/s"
        )

    def checkpoint(self, path: Path, epoch: int, step: int) -> None:
        if self._signals.asked:
            path.replace(self._checkpoint)

    def should_stop(self) -> bool:
        return self._signals.asked


def _predict(options: argparse.Namespace) -> int:
    from app.vision.artefact import load_model

    path: Path = options.model
    model = load_model(path / "model.safetensors" if path.is_dir() else path)
    failures = 0
    for image in options.images:
        try:
            probabilities = model.predict(model.prepare(image)[None])[0]
        except InvalidData as error:
            failures += 1
            _fail(str(error), FAILED)
            continue
        best = probabilities.argsort()[::-1][: max(1, options.top_k)]
        answers = [{"class": model.classes[label], "probability": float(probabilities[label])} for label in best]
        if options.json:
            _say(json.dumps({"image": str(image), "predictions": answers}))
        else:
            _say(f"{image}  " + ", ".join(f"{answer['class']} {answer['probability']:.4f}" for answer in answers))
    return FAILED if failures else 0


def _say(line: str) -> None:
    if speaks():
        print(line, flush=True)
