"""A trained model is one safetensors file: tensors, and a document that says all else its answers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from app.vision.artefacts.tensorfile import read_document, read_tensors, write_tensors
from app.vision.engines.model import TrainedModel
from app.vision.errors import DamagedArtefact, VisionError
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.tasks import default_task, part_of_task
from app.vision.tasks.task import Task

KIND = "graftwork.model"


def save_model(
    path: Path, network: Network, document: Mapping[str, Any], tensors: Mapping[str, Tensor], *, task: str | None = None
) -> None:
    """Write the model; afterwards `path` is whole, or as it was. `tensors` are those that are not the network's.

    The document is the task's: see `Task.finish`. A file that names no task is of the default one, and none of those
    names it: they are the same bytes as before there were others.
    """
    named = {} if task in (None, default_task()) else {"task": task}
    write_tensors(path, KIND, network.state_dict() | dict(tensors), {**named, **document})


def load_model(path: Path, device: str = "cpu") -> TrainedModel:
    """Return the model that `save_model` wrote; raises DamagedArtefact for a damaged or foreign file."""
    tensors, document = read_tensors(path, KIND)
    try:
        name = document.get("task", default_task())
        task: Task[Any] = part_of_task("task", name).TASK
        preprocessing = Preprocessing.from_dict(document["preprocessing"])
        answers = task.answers(document, tensors)
        network = task.network(document)
        network.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, VisionError) as error:
        raise DamagedArtefact(f"{path.name} does not describe a model this version can build: {error}") from error
    network.to(device)
    return TrainedModel(network, preprocessing, answers)


def read_model_document(path: Path) -> dict[str, Any]:
    """Return what the file says of itself: backbone, head, preprocessing, configuration, and what its task adds."""
    return read_document(path, KIND)
