"""Compare throughput over HTTP with LitServe, BentoML and a plain FastAPI handler (torch eager, Pillow).

The same weights, JPEGs and client process for all; each other server is written as its own documentation has it, in
bench/others, and runs in an environment that uv makes in a temporary folder, with this one's torch. `ratio` is ours,
with the engine that it chose, over the best of the others; `same_engine` is ours with their engine, torch in float32.
Of the others, those that are not being asked are stopped meanwhile (SIGSTOP): what they take while idle is nobody's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from app.vision.backbones.catalogue import get_backbone
from app.vision.engines.model import TrainedModel
from bench.inputs import torchvision_network, weights_file
from bench.load import Answers, Target, closed_loop
from bench.rounds import arguments, compared, emit, note, spread
from bench.served import Served, same_labels, served, serving_arguments

TARGET, TARGET_SAME_ENGINE = 5.0, 1.25
OTHERS = Path(__file__).parent / "others"
# What each needs beside torch, and the module that shows that it is here.
PACKAGES = {
    "fastapi": ("fastapi", ["fastapi", "uvicorn", "python-multipart"]),
    "litserve": ("litserve", ["litserve", "python-multipart"]),
    "bentoml": ("bentoml", ["bentoml"]),
}
COMMANDS = {
    "fastapi": ["{python}", "plain_fastapi.py", "{port}", "{folder}"],
    "litserve": ["{python}", "lit_serve.py", "{port}", "{folder}"],
    "bentoml": ["{python}", "-m", "bentoml", "serve", "bento:TrainedModel", "--port", "{port}", "--working-dir", "."],
}
ROUTES: dict[str, tuple[str, str, tuple[str | int, ...]]] = {
    "fastapi": ("/predict", "file", ("label",)),
    "litserve": ("/predict", "request", ("label",)),
    "bentoml": ("/classify", "images", (0,)),
}


def write_network(classifier: TrainedModel, backbone: str, weights: Path, folder: Path) -> None:
    """Write the classifier as torchvision's own network: what standardises the features goes into the last layer."""
    network = torchvision_network(backbone, weights, len(classifier.classes))
    state = classifier.network.trunk.state_dict()
    network.load_state_dict({name.removeprefix("stem."): tensor for name, tensor in state.items()}, strict=False)
    head, last = classifier.network.head, network.get_submodule("fc")
    inner = head.layers[-1]
    with torch.no_grad():
        last.weight.copy_(inner.weight / head.scale)  # type: ignore[operator, union-attr]
        last.bias.copy_(inner.bias - inner.weight @ (head.mean / head.scale))  # type: ignore[operator, union-attr]
    folder.mkdir()
    torch.save(network.state_dict(), folder / "weights.pt")
    about = classifier.preprocessing.to_dict()
    about |= {"architecture": get_backbone(backbone).name.partition("-")[0], "classes": list(classifier.classes)}
    (folder / "about.json").write_text(json.dumps(about))


def environment(name: str, folder: Path) -> str:
    """Return the Python of a new environment with that server, and torch, torchvision and Pillow as they are here."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise SystemExit("uv is not installed here: pip install uv, or make")
    note(f"making an environment for {name}")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    same = [f"{one}=={version(one).partition('+')[0]}" for one in ("torch", "torchvision", "pillow", "numpy")]
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *same, *PACKAGES[name][1]], check=True)
    return python


@dataclass(frozen=True)
class Asked:
    """Hold a server that is asked, and the process group that is stopped while it is not; None for ours."""

    target: Target
    group: int | None = None

    @contextlib.contextmanager
    def awake(self) -> Iterator[Target]:
        self._signal(signal.SIGCONT)
        try:
            yield self.target
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        if self.group is not None:
            os.killpg(self.group, number)


@contextlib.contextmanager
def running(name: str, python: str, folder: Path) -> Iterator[Asked]:
    """Give the server once it answers; it is stopped then."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.format(python=python, port=port, folder=folder) for part in COMMANDS[name]]
    silent = {"BENTOML_DO_NOT_TRACK": "True", "LITSERVE_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    environ = os.environ | silent | {"MODEL_FOLDER": str(folder), "BENTOML_HOME": str(folder / "bentoml")}
    path, form, label = ROUTES[name]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=OTHERS, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        target = Target(f"http://127.0.0.1:{port}{path}", {}, label, form)
        deadline = time.monotonic() + 180
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGSTOP)
        yield Asked(target, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGCONT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def targets(given: Any, service: Served, scratch: Path, stack: contextlib.ExitStack) -> dict[str, Asked]:
    """Return all that are asked: ours with its own engine and with theirs, and the others that can be had."""
    found = {"graftwork": Asked(service.target()), "graftwork torch": Asked(service.target(engine="torch"))}
    model = scratch / "network"
    write_network(service.classifier, given.backbone, weights_file(given.backbone, given.weights), model)
    for name in given.others.split(","):
        if given.here:
            if importlib.util.find_spec(PACKAGES[name][0]) is None:
                note(f"{name} is not installed here and left out")
                continue
            python = sys.executable
        else:
            python = environment(name, scratch / name)
        found[name] = stack.enter_context(running(name, python, model))
    return found


def main() -> None:
    parser = serving_arguments(arguments(__doc__))
    parser.add_argument("--others", default=",".join(PACKAGES), help="with commas")
    parser.add_argument("--here", action="store_true", help="use this environment; servers that it lacks are left out")
    given = parser.parse_args()
    answers: dict[str, list[Answers]] = {}
    with served(given) as service, contextlib.ExitStack() as stack:
        asked = targets(given, service, service.home.parent, stack)
        for one in asked.values():  # warm
            with one.awake() as target:
                closed_loop(target, service.images, max(1.0, given.seconds / 5), given.connections)
        for number in range(given.rounds):
            for name, one in asked.items():
                with one.awake() as target:
                    found = closed_loop(target, service.images, given.seconds, given.connections)
                if not found.latencies:
                    raise SystemExit(f"{name} answers nothing: {found.failed[:1]}")
                answers.setdefault(name, []).append(found)
            note(f"round {number + 1}: " + ", ".join(f"{name} {all_[-1].rate:.1f}" for name, all_ in answers.items()))
    rates = {name: [one.rate for one in found] for name, found in answers.items()}
    labels = {name: {k: v for one in found for k, v in one.labels.items()} for name, found in answers.items()}
    others = [name for name in rates if not name.startswith("graftwork")]
    best = max(others, key=lambda name: statistics.median(rates[name]))
    ratio, same_engine = (compared(rates[ours], rates[best]) for ours in ("graftwork", "graftwork torch"))
    emit(
        "serve_others",
        **ratio,
        target=TARGET,
        met=ratio["ratio"] >= TARGET,
        same_engine=same_engine | {"target": TARGET_SAME_ENGINE, "met": same_engine["ratio"] >= TARGET_SAME_ENGINE},
        best=best,
        images_per_second={name: spread(values, 1) for name, values in rates.items()},
        same_labels={name: same_labels(labels["graftwork torch"], labels[name]) for name in others},
        failed={name: sum(len(one.failed) for one in found) for name, found in answers.items()},
        engine=service.engine,
        connections=given.connections,
        backbone=given.backbone,
        size=given.size,
    )


if __name__ == "__main__":
    main()
