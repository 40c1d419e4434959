"""Check that this tree trains the same models, to the bit, as an earlier commit: `python -m bench.equality`.

Each configuration is trained on the same small images by the public command `python -m app.vision train` of either
tree, in the environment of that tree. The SHA-256 of the two model files must be equal; where they are not, the table
says whether tensors differ or only what the file says about itself. `--added task` lets the file of this tree say that
much more. Ends with 1 on a difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checkouts import Checkout, add_options, chosen, this_checkout

TINY = "resnet18-tiny64"
SMALL = ("--no-download", "--epochs", "3", "--batch-size", "8", "--seed", "7")
PATIENCE = 300.0  # seconds for one run


@dataclass(frozen=True)
class Configuration:
    """Describe one way to train. `base` is the configuration whose model it starts from, which must stand before it."""

    name: str
    options: tuple[str, ...]
    backbone: str = TINY
    size: int = 32  # pixels
    processes: int = 1
    interrupted: bool = False  # after its first epoch, and resumed
    base: str | None = None


CONFIGURATIONS = (
    Configuration("head", ("--augmentation", "light", "--views", "2")),
    Configuration("stages", ("--train", "2", "--unfreeze-every", "1", "--layer-decay", "0.5")),
    Configuration("all", ("--train", "all", "--accumulate", "2", "--clip-norm", "1")),
    Configuration("mixup", ("--train", "1", "--mixup", "0.3", "--cutmix", "1", "--label-smoothing", "0.1")),
    Configuration("EMA", ("--train", "1", "--ema", "0.9", "--imbalance", "sampling")),
    Configuration("resume", ("--train", "1", "--epochs", "8", "--ema", "0.9"), interrupted=True),
    Configuration("ranks", ("--train", "1", "--precision", "float32"), processes=2),
    Configuration("base model", ("--train", "1"), base="head"),
    Configuration("MLP head", ("--head-hidden", "16,8", "--head-dropout", "0.2", "--head-pooling", "gem")),
    Configuration("target precision", ("--target-precision", "0.7", "--epochs", "10")),
    Configuration("VGG", ("--train", "1"), backbone="vgg11"),
    Configuration("96 px", ("--train", "1", "--epochs", "2"), size=96),
    Configuration("float32", ("--train", "1", "--precision", "float32", "--focal-gamma", "2")),
)


@dataclass(frozen=True)
class Inputs:
    """Hold what both trees are given."""

    images: Path
    vgg: Path  # weights of a VGG-11


def make_inputs(folder: Path) -> Inputs:
    """Return 48 training, 24 validation and 12 test images of three classes, and a VGG's weights drawn at random."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    from tests.support.pictures import CLASSES, draw

    for offset, (split, count) in enumerate({"train": 16, "val": 8, "test": 4}.items()):
        for label, name in enumerate(CLASSES):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                draw(label, 1000 * offset + number).save(place / f"{number}.png")
    torch.manual_seed(0)
    with torch.device("meta"):
        features = torchvision.models.vgg11().features
    features.to_empty(device="cpu")
    for layer in features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    save_file(state, folder / "vgg.safetensors")
    return Inputs(folder / "images", folder / "vgg.safetensors")


def train(checkout: Checkout, one: Configuration, inputs: Inputs, models: Path) -> Path:
    """Train in that checkout and return the model's file, in a folder of `models` with the configuration's name."""
    out = models / one.name
    start = ["--base-model", models / one.base] if one.base else ["--backbone", one.backbone]
    if one.backbone == "vgg11":
        start += ["--weights", inputs.vgg]
    command = checkout.module(
        "app.vision", "train", inputs.images, "--out", out, *start, "--input-size", str(one.size), *SMALL, *one.options
    )
    if one.interrupted:
        _interrupt(checkout, one.name, command)
        command += ["--resume", str(out)]
    _run(checkout, one.name, command, one.processes)
    return out / "model.safetensors"


def _run(checkout: Checkout, name: str, command: Sequence[str], processes: int) -> None:
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)}
    started = [
        _start(checkout, command, **(meeting | {"RANK": str(rank)} if processes > 1 else {}))
        for rank in range(processes)
    ]
    try:
        for process in started:
            said = process.communicate(timeout=PATIENCE)[0]
            if process.returncode:
                ended = f"in {checkout.root} ended with {process.returncode}"
                raise SystemExit(f"{name}: {' '.join(command)} {ended}:\n{said}")
    finally:
        for process in started:
            process.kill()


def _interrupt(checkout: Checkout, name: str, command: Sequence[str]) -> None:
    """Send SIGINT after the first epoch; raises SystemExit where the command does not end as interrupted."""
    process = _start(checkout, command)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("epoch 1/"):
            process.send_signal(signal.SIGINT)
    if process.wait(PATIENCE) != 130:
        raise SystemExit(f"{name}: the run in {checkout.root} was not interrupted:\n{''.join(said)}")


def _start(checkout: Checkout, command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    environment = checkout.environment(OMP_NUM_THREADS="1", MPLBACKEND="agg", **variables)
    return subprocess.Popen(
        command, cwd=checkout.root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def difference(before: Path, after: Path, added: Collection[str] = ()) -> str | None:
    """Return what differs between two model files in a few words, and None where nothing does.

    Keys of `added` may stand in the document of `after` alone.
    """
    if sha256(before) == sha256(after):
        return None
    old, new = _contents(before), _contents(after)
    tensors = sorted(name for name in old[0].keys() | new[0].keys() if old[0].get(name) != new[0].get(name))
    keys = sorted(name for name in old[1].keys() | new[1].keys() if old[1].get(name, ...) != new[1].get(name, ...))
    keys = [name for name in keys if name not in added or name in old[1]]
    if tensors:
        return f"{len(tensors)} of {len(old[0])} tensors differ, first {tensors[0]}"
    if keys:
        return f"the tensors are equal, the document differs in {', '.join(keys)}"
    return None if added else "tensors and document are equal, but not the order of the bytes"


def _contents(path: Path) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """Return the tensors of a model file, as type, shape and bytes, and the document that it carries."""
    data = path.read_bytes()
    begins = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begins])
    entry = json.loads(header.pop("__metadata__")["graftwork"])
    document = entry.pop("document") | {"format": entry["format"], "version": entry["version"]}
    tensors = {}
    for name, one in header.items():
        first, end = one["data_offsets"]
        tensors[name] = (one["dtype"], tuple(one["shape"]), data[begins + first : begins + end])
    return tensors, document


def compare(
    before: Checkout, after: Checkout, configurations: Sequence[Configuration], added: Collection[str], scratch: Path
) -> list[str]:
    """Train each configuration in both trees at once and print a line for it; return the names of those that differ."""
    inputs = make_inputs(scratch)
    differing = []
    print(f"{'configuration':<18}{'before':<18}{'after':<18}{'seconds':>7}", flush=True)
    with ThreadPoolExecutor(2) as pool:
        for one in configurations:
            began = time.monotonic()
            old, new = pool.map(
                lambda side, one=one: train(side[0], one, inputs, scratch / side[1]),
                ((before, "before"), (after, "after")),
            )
            found = difference(old, new, added)
            if found:
                differing.append(one.name)
            took = f"{time.monotonic() - began:7.1f}"
            print(f"{one.name:<18}{sha256(old)[:16]:<18}{sha256(new)[:16]:<18}{took}  {found or 'equal'}", flush=True)
    return differing


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare as the options say; return 1 where a model differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--only", action="append", metavar="NAME", help="this configuration alone; may be repeated")
    parser.add_argument("--added", action="append", default=[], metavar="KEY", help="a key that the new file may add")
    given = parser.parse_args(arguments)
    names = [one.name for one in CONFIGURATIONS]
    if unknown := set(given.only or ()) - set(names):
        parser.error(f"--only {', '.join(sorted(unknown))}: there is no such configuration; use {', '.join(names)}.")
    wanted = set(given.only or names)
    wanted |= {one.base for one in CONFIGURATIONS if one.name in wanted and one.base}
    before, after = chosen(given, "run"), this_checkout()
    with tempfile.TemporaryDirectory(prefix="graft-equality-") as scratch:
        run = [one for one in CONFIGURATIONS if one.name in wanted]
        differing = compare(before, after, run, given.added, Path(scratch))
    count = len(run)
    print(
        f"{before.description()} and {after.description()}: "
        + (f"{len(differing)} of {count} differ: {', '.join(differing)}" if differing else f"all {count} are equal")
    )
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
