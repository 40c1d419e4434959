"""`JobType`, a kind of job, and the registry of those that this process knows: `app.work` fills it, the queue asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from app.core.errors import Conflict
from app.jobs.schemas import Metrics, Result, Spec

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.jobs.orm import Job


class Resource(StrEnum):
    """The resource that a job needs the most. A worker has slots of each, and a slot runs one job at a time."""

    io = "io"
    cpu = "cpu"
    gpu = "gpu"


def _nothing(session: Session, job: Job, report: dict[str, Any] | None) -> None:
    """The end of most jobs changes nothing but their own row."""


def _none(_: Mapping[str, Any]) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class JobType:
    """A kind of job, and all that the queue, the workers and the API need to know of it."""

    name: str  # in rows, in messages and in the API
    noun: str  # several of them, in messages to people: "trainings"
    slot: Resource

    # What a row says of it. The API documents these two.
    spec: type[Spec]
    result: type[Result]

    # What the child process calls, as "module:function". It is imported in the child alone.
    run: str

    # Writes down what the child made, in the transaction that ends the job, and returns what the row keeps of it.
    finish: Callable[[Session, Job, dict[str, Any]], Result]
    # Is called at any end, in the same transaction, with the job in its last state. A failure may bring a report.
    ended: Callable[[Session, Job, dict[str, Any] | None], None] = _nothing

    # The SHA-256 of the blobs that are kept from the garbage collector: those that the spec names, until the job has
    # ended, and those that the result names, as long as the job's row is there. Both get what the row holds, which
    # older code may have written.
    spec_blobs: Callable[[Mapping[str, Any]], Iterable[str]] = _none
    result_blobs: Callable[[Mapping[str, Any]], Iterable[str]] | None = None

    # What an epoch reports, where there are epochs.
    metrics: type[Metrics] = Metrics
    # Whether a child waits for the next job with everything imported: it takes memory, and saves seconds.
    warm: bool = False
    # Whether several machines may share one, by `resources.machines` of its spec.
    shared: bool = False
    # Whether a dataset cannot be deleted while one of them is unfinished. If not, the job is cancelled instead.
    holds_dataset: bool = True
    # Whether the newest checkpoint is of use to callers, who may download it.
    offers_checkpoint: bool = False
    # Whether the child puts blobs long before the row that names them is written: none is collected that was put since
    # such a job began. Others put theirs when they are about to be written down.
    puts_early: bool = False
    # Fields of the spec: jobs of one dataset that agree in them take about as long.
    alike: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.shared and self.slot is not Resource.gpu:
            raise ValueError(f"{self.name}: machines share jobs of the gpu slot alone, not of {self.slot}")


class JobTypes:
    """The kinds of job that a process knows, by their names."""

    def __init__(self) -> None:
        self._types: dict[str, JobType] = {}

    def register(self, *types: JobType) -> None:
        """Add kinds; one that is there already stays. Raises ValueError for two different ones of one name."""
        for one in types:
            if self._types.setdefault(one.name, one) != one:
                raise ValueError(f"there are two kinds of job named {one.name!r}; rename one of them")

    def replace(self, one: JobType) -> None:
        """Add a kind, in the place of the one of its name if there is one."""
        self._types[one.name] = one

    def __iter__(self) -> Iterator[JobType]:
        if not self._types:  # a job would end without what its kind does then
            raise RuntimeError("no kind of job is known here; import app.work first")
        return iter(self._types.values())

    def find(self, name: str) -> JobType | None:
        """Return the kind of that name; None for one that newer code knows."""
        return next((one for one in self if one.name == name), None)

    def get(self, name: str) -> JobType:
        """Return the kind of that name. Raises `Conflict` for one that newer code knows."""
        if (found := self.find(name)) is None:
            detail = f"This process is older than jobs of kind {name!r} and can neither run nor end them. Update it."
            raise Conflict(detail, code="unknown_kind")
        return found

    def names(self) -> list[str]:
        return [one.name for one in self]

    def of(self, slot: Resource) -> list[JobType]:
        """Return the kinds that take turns in slots of that resource."""
        return [one for one in self if one.slot is slot]


KNOWN = JobTypes()
