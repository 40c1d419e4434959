"""Says what training, model files, engines and serving know of a task: how it learns, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.backbones.weights import WeightStore
from app.vision.data.feeds import Feed
from app.vision.data.packing import Fetch
from app.vision.data.rowcache import RowCache
from app.vision.data.samples import Sample
from app.vision.images.mixing import Mix
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.base_model import BaseModel
from app.vision.networks.network import Network
from app.vision.networks.outputs import Outputs
from app.vision.runtime.observer import Observer
from app.vision.runtime.progress import Progress
from app.vision.settings.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Inputs:
    """Holds what a run is given. `classes` are the names of the labels, none for a task whose labels have no names."""

    config: TrainConfig  # resolved
    samples: Sequence[Sample]
    classes: Sequence[str]
    weights: Path | WeightStore
    base: BaseModel | None  # the model to start from, in place of published weights
    workdir: Path
    observer: Observer
    progress: Progress
    device: torch.device
    cache: RowCache
    fetch: Fetch


def never_hopeless(watched: dict[str, float], loss: float, counts: Sequence[float]) -> str | None:
    """Say of no step that its loss is hopeless."""
    return None


@dataclass(kw_only=True)
class Run:
    """Holds what the training loop works with; `identity` ties a checkpoint to its configuration and data.

    `groups` [N] holds a number for each training image: sampling shows all groups equally often where that is asked
    for. A step counts what `counts` names: each key, under which a checkpoint keeps the sum, has the name of the mean
    over the samples in the epoch's record. `hopeless` hears a step's mean loss and its counts, each over its samples,
    and says of a loss without hope what is to be told; it keeps in `watched` what it remembers between steps.
    """

    config: TrainConfig
    network: Network
    feed: Feed
    preprocessing: Preprocessing
    groups: NDArray[np.int64]
    workdir: Path
    observer: Observer
    progress: Progress
    identity: dict[str, Any]
    counts: Mapping[str, str] = field(default_factory=dict)
    hopeless: Callable[[dict[str, float], float, Sequence[float]], str | None] = never_hopeless
    history: list[dict[str, Any]] = field(default_factory=list)  # the records of the epochs, when all are done
    best_epoch: int = 0  # from 1, when all are done


class Batch(NamedTuple):
    """Names training rows as an epoch shows them, mixed as `how` says; None mixes nothing."""

    epoch: int
    rows: NDArray[np.int64]
    how: Mix | None


class StepLoss(NamedTuple):
    """Holds the mean loss of a batch, with its graph, and what was counted in it in the order of `counts`, all scalars.

    All lie on the device: to ask a GPU for a number is to wait until it has done all it was told.
    """

    loss: Tensor
    counts: tuple[Tensor, ...] = ()


class Validation(Protocol):
    """Says what validation found after an epoch; it can be pickled. `record` stands in the epoch's record."""

    @property
    def record(self) -> dict[str, float]: ...

    @property
    def loss(self) -> float:
        """Return the mean loss; one that is not finite ends the run."""

    def better_than(self, record: Mapping[str, Any]) -> bool:
        """Return whether this epoch is better than the one with that record."""


@dataclass(frozen=True)
class Table:
    """Gives rows of one kind. `columns` are those that a CSV file has."""

    columns: Sequence[str]
    rows: Callable[[], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Finished:
    """Holds what a finished run leaves.

    `metrics` holds what was measured on each split; `document` and `tensors` (beside the network's) go into the model
    file; `recorded` stands with the metrics in the registry; `arrays` holds, by name and split, what the model says of
    the held-out images, in the order of the samples. Pictures (`name.png`) are drawn and tables (`name`) are written
    when somebody wants them. `notes` are for the run's user: what was not done as asked for, and why; `summary` are
    lines for a terminal.
    """

    metrics: dict[str, Any]
    document: dict[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    pictures: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    summary: Sequence[str] = ()


class Agreement(NamedTuple):
    """Says how an engine's outputs on held-out images compare with the reference's, and as `detail` why not to use it.

    `agreement` is the share of the images of which both say the same. The other two are None where a task or a model
    has no such thing: the reference's accuracy minus the engine's, and the share of unknown images likewise turned.
    """

    agreement: float
    detail: str | None = None
    accuracy_drop: float | None = None
    unknown_shift: float | None = None


class AnswerOptions(Protocol):
    """Says what a caller asks of an answer; a task reads what it has a use for."""

    @property
    def top_k(self) -> int: ...
    @property
    def threshold(self) -> float: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def probabilities(self) -> str: ...


class Answers(Protocol):
    """Turns a network's outputs into answers. What one image's answer is, the task alone knows."""

    @property
    def nbytes(self) -> int:
        """Return the bytes that it occupies in memory beside the network."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names that answers bear; none where the task has no names."""

    @property
    def thresholds(self) -> tuple[float | None, ...] | None:
        """Return the thresholds of the model file, which others may take the place of; None where it has none."""

    def answer(self, outputs: Outputs) -> list[Any]:
        """Return one answer an image; raises FloatingPointError where a number in them is not finite."""

    def describe(
        self, answer: Any, options: AnswerOptions, thresholds: Sequence[float | None] | None
    ) -> dict[str, Any]:
        """Return what predict says of an image, JSON-able, by the fields of its schema."""

    def text(self, described: Mapping[str, Any]) -> str:
        """Return what `describe` gave as a line for a terminal."""

    def line(self, described: Mapping[str, Any], image: str) -> str:
        """Return what `describe` gave of an image as a line of JSON for a terminal's programs."""

    def tensor(
        self, name: str, answers: Sequence[Any], thresholds: Sequence[float | None] | None
    ) -> NDArray[np.float32] | list[str]:
        """Return one of the task's output tensors; raises LookupError, which says why, where the model lacks it."""

    def agreement(self, outputs: Outputs, reference: Outputs, labels: NDArray[np.int64]) -> Agreement:
        """Compare an engine's outputs on labelled held-out images with the reference's."""


R = TypeVar("R", bound=Run)


class Task(Protocol[R]):
    """Is what is learnt. `app.vision.tasks.TASKS` lists the tasks that there are."""

    name: str

    def prepare(self, inputs: Inputs) -> R:
        """Return all that there is before the first step: data, labels, network, feed.

        Raises InvalidData, InvalidConfig, WeightsUnavailable, Stopped.
        """

    def loss(self, run: R, batch: Batch) -> StepLoss:
        """Return the loss of a batch, and what the epoch's record counts."""

    def validate(self, run: R) -> Validation:
        """Return how the network as it is now does on the validation images."""

    def finish(self, run: R) -> Finished:
        """Return what the run leaves; the network has its best weights."""

    def network(self, document: Mapping[str, Any]) -> Network:
        """Return the network of a model file, without its weights.

        Raises KeyError, TypeError, ValueError or a VisionError for a document that describes none.
        """

    def answers(self, document: Mapping[str, Any], tensors: dict[str, Tensor]) -> Answers:
        """Return what turns outputs into answers, and take its tensors out of `tensors`; raises as `network` does."""
