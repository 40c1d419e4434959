"""Turn an archive, or files from elsewhere, into verified image blobs and a frozen manifest, without a database."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from app.core.errors import GraftError
from app.datasets.counts import by_split, count_labels
from app.datasets.formats.archive import ArchiveLimits
from app.datasets.formats.layout import Layout, Placement, check_counts
from app.datasets.intake.groups import TakeIn, groups, take_in_group
from app.datasets.intake.intake import RejectedFile, Taken
from app.datasets.manifest import ManifestImage, write_manifest
from app.datasets.sources.source import ArchiveSource, Source
from app.datasets.split import draw_split, fill_split
from app.storage import BlobStore
from app.storage.batches import Batches
from app.vision.data.folder_names import Split

_LISTED = 1000  # findings kept a list; the counts are complete
_AHEAD = 8  # groups a thread that are read before the oldest is done: bounds the memory


@dataclass(frozen=True, slots=True)
class Ingested:
    """An ingestion found this for a dataset. Every blob it names is in the store."""

    manifest_sha256: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    images: list[dict[str, Any]]
    report: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _KeptImage:
    name: str
    placement: Placement
    sha256: str
    width: int
    height: int
    size: int
    phash: str


@dataclass(slots=True)
class Report:
    """A report says what became of every file."""

    files: int = 0
    accepted: int = 0
    rejected_count: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)
    noted_count: int = 0
    noted: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def reject(self, file: str, code: str, reason: str, remedy: str | None) -> None:
        self.rejected_count += 1
        if len(self.rejected) < _LISTED:
            self.rejected.append({"file": file, "code": code, "reason": reason, "remedy": remedy})

    def note(self, file: str, code: str, reason: str) -> None:
        self.noted_count += 1
        if len(self.noted) < _LISTED:
            self.noted.append({"file": file, "code": code, "reason": reason, "remedy": None})


class UnusableUpload(Exception):
    """Too little is left of the upload to train on. `errors` names each class or file and the remedy."""

    def __init__(self, cause: GraftError, report: Report) -> None:
        super().__init__(cause.detail)
        self.cause = cause
        self.report = report


def ingest(
    archive: Path,
    store: BlobStore,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    archive_limits: ArchiveLimits,
    take_in: TakeIn,
    threads: int = 2,
    progress: Callable[[float], None],
) -> Ingested:
    """Do `ingest_from` for an archive on local disk, read member by member."""
    return ingest_from(
        ArchiveSource(archive, archive_limits),
        store,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        take_in=take_in,
        threads=threads,
        progress=progress,
    )


def ingest_from(
    source: Source,
    store: BlobStore,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    take_in: TakeIn,
    threads: int = 2,
    progress: Callable[[float], None],
) -> Ingested:
    """Read the files of `source`, keep what is an image, split it, and freeze the result.

    `take_in` is called from so many `threads` at once, each time with a few files. `progress` gets fractions from 0 to
    1. Raises `UnusableUpload` when what is left cannot be trained on.
    """
    layout = source.layout()
    report = Report(files=len(layout.placements) + len(layout.skipped))
    for skipped in layout.skipped:
        report.reject(skipped.name, skipped.code, skipped.reason, skipped.remedy)

    kept = _take_in_all(source, store, layout, take_in, threads, report, progress)
    kept = _without_duplicates(kept, report)
    report.accepted = len(kept)

    splits = _splits(kept, layout, val_fraction, test_fraction, seed)
    counts = count_labels((item.placement.label, splits[item.sha256]) for item in kept)
    try:
        check_counts(counts)
    except GraftError as cause:
        raise UnusableUpload(cause, report) from cause

    classes = sorted(counts)
    manifest = write_manifest(
        [ManifestImage(k.sha256, k.placement.label, splits[k.sha256], k.name, k.placement.metadata) for k in kept],
        classes,
    )
    images = [
        {
            "sha256": k.sha256,
            "name": k.name,
            "label": k.placement.label,
            "split": splits[k.sha256],
            "width": k.width,
            "height": k.height,
            "size": k.size,
            "phash": k.phash,
            "extra": k.placement.metadata or None,
        }
        for k in kept
    ]
    return Ingested(store.put_bytes(manifest).sha256, classes, by_split(counts), images, report.as_dict())


def _take_in_all(
    source: Source,
    store: BlobStore,
    layout: Layout,
    take_in: TakeIn,
    threads: int,
    report: Report,
    progress: Callable[[float], None],
) -> list[_KeptImage]:
    """Verify and store every placed file, in the source's order whichever thread is faster."""
    accepted: list[tuple[str, int, int, str]] = []
    with Batches(store) as batches, ThreadPoolExecutor(threads, "intake") as pool:

        def results() -> Iterator[list[tuple[str, Taken]]]:
            waiting: deque[Future[list[tuple[str, Taken]]]] = deque()
            for group in groups(source, layout):
                waiting.append(pool.submit(take_in_group, group, take_in))
                if len(waiting) >= _AHEAD * threads:
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()

        try:
            for done, (name, image) in enumerate(chain.from_iterable(results()), start=1):
                if isinstance(image, RejectedFile):
                    report.reject(name, image.code, image.reason, image.remedy)
                else:
                    batches.put(image.data)
                    accepted.append((name, image.width, image.height, image.phash))
                    for note in image.notes:
                        report.note(name, note.code, note.message)
                progress(done / len(layout.placements))
        except BaseException:  # what was to be fetched next is not
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        blobs = batches.finish()
    return [
        _KeptImage(name, layout.placements[name], blob.sha256, width, height, blob.size, phash)
        for (name, width, height, phash), blob in zip(accepted, blobs, strict=True)
    ]


def _without_duplicates(kept: list[_KeptImage], report: Report) -> list[_KeptImage]:
    """Return one copy of each image, so that no image is both learnt from and tested on.

    Copies within a class: the first by name in train, else the first, stays. An image under two labels says that one of
    them is wrong, and nobody here knows which: all its copies are left out.
    """
    copies: dict[str, list[_KeptImage]] = {}
    for item in kept:
        copies.setdefault(item.sha256, []).append(item)
    chosen = []
    for group in copies.values():
        labels = sorted({item.placement.label for item in group})
        if len(labels) > 1:
            for item in group:
                report.reject(
                    item.name,
                    "conflicting_labels",
                    f"The same image stands under the labels {', '.join(labels)}.",
                    "Keep it under the one label that is right.",
                )
            continue
        first = min(group, key=lambda item: (item.placement.split not in (None, "train"), item.name))
        chosen.append(first)
        for item in group:
            if item is not first:
                leak = item.placement.split != first.placement.split
                code = "duplicate_across_splits" if leak else "duplicate"
                report.reject(item.name, code, f"The same image as {first.name}.", "Nothing to do: one copy is kept.")
    return chosen


def _splits(
    kept: list[_KeptImage], layout: Layout, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, Split]:
    """Return the split of each image by its hash: the same bytes are divided the same way, whatever its files are
    called."""
    if not layout.has_split:
        items = [(item.sha256, item.placement.label) for item in kept]
        return dict(draw_split(items, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed))
    given = [(item.sha256, item.placement.label, item.placement.split or "train") for item in kept]
    return dict(fill_split(given, val_fraction=val_fraction, seed=seed))
