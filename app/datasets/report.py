"""This module reports on a dataset before anything is trained on it: its shape, and findings with their images."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.datasets.counts import by_split, count_labels
from app.datasets.intake.similarity import near_pairs
from app.datasets.orm import DatasetImage
from app.datasets.schemas import DatasetReport, Finding, Severity, Spread

LISTED = 200  # images named in one finding; its count is complete
_PAIRS = 20_000  # near pairs that are looked at
_FEW = 10  # images of a class to learn from, below which what is learned is chance
_FEW_VAL = 5  # of a class to validate on
_IMBALANCE = 10  # times that the largest class may be the smallest
_HASHABLE = 32  # px; the hash is of so many rows, and makes them up where there are fewer
_SMALL = 64  # px; below half of what the smallest backbone looks at
_LONG = 4.0  # width by height, or the other way round


def report_on(
    images: Sequence[DatasetImage], upload: Mapping[str, Any], opinions: Iterable[Finding] = ()
) -> DatasetReport:
    """Return the report on these images, and on what their upload left out (`IngestionReport` as a dict).

    `opinions` are findings of models, which take their place among the others.
    """
    counts = count_labels((image.label, image.split) for image in images)  # type: ignore[misc]
    findings = [
        *_near_duplicates(images),
        *_left_out(upload),
        *_small_classes(counts, images),
        *_imbalance(counts),
        *_odd_shapes(images),
        *opinions,
    ]
    order = list(Severity)
    return DatasetReport(
        images=len(images),
        counts=by_split(counts),
        width=_spread([image.width for image in images]),
        height=_spread([image.height for image in images]),
        aspect=_spread([image.width / image.height for image in images]),
        bytes=_spread([image.size for image in images]),
        findings=sorted(findings, key=lambda finding: (order.index(finding.severity), -finding.count)),
    )


def _spread(values: Sequence[float]) -> Spread | None:
    """Return quantiles of a distribution, by nearest rank."""
    if not values:
        return None
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)

    return Spread(
        min=at(0), p05=at(0.05), median=round(statistics.median(ordered), 3), p95=at(0.95), max=round(ordered[-1], 3)
    )


def _finding(
    code: str, severity: Severity, message: str, remedy: str, ids: Iterable[str] = (), count: int | None = None
) -> Finding:
    listed = list(dict.fromkeys(ids))
    return Finding(
        code=code,
        severity=severity,
        message=message,
        remedy=remedy,
        count=len(listed) if count is None else count,
        images=listed[:LISTED],
    )


def _near_duplicates(images: Sequence[DatasetImage]) -> Iterable[Finding]:
    """Return pairs that look the same: under two labels, in two splits, or merely twice."""
    hashed = [image for image in images if image.phash and min(image.width, image.height) >= _HASHABLE]
    kinds: dict[str, list[tuple[DatasetImage, DatasetImage]]] = {"labels": [], "splits": [], "same": []}
    for first, second in near_pairs([str(image.phash) for image in hashed], most=_PAIRS):
        one, other = hashed[first], hashed[second]
        kind = "labels" if one.label != other.label else "splits" if one.split != other.split else "same"
        kinds[kind].append((one, other))

    def told(kind: str, code: str, severity: Severity, what: str, remedy: str) -> Iterable[Finding]:
        if pairs := kinds[kind]:
            one, other = pairs[0]
            message = f"{len(pairs)} pairs of images look the same {what}, for instance {one.name} and {other.name}."
            ids = (image.sha256 for pair in pairs for image in pair)
            yield _finding(code, severity, message, remedy, ids, count=len(pairs))

    yield from told(
        "labels",
        "near_duplicates_under_two_labels",
        Severity.error,
        "and have different labels",
        "Look at each pair: where they show the same thing, one label is wrong; PATCH or DELETE that image.",
    )
    yield from told(
        "splits",
        "near_duplicates_across_splits",
        Severity.warning,
        "and lie in different splits, so that scores are better than they ought to be",
        "Move both into train with PATCH, or DELETE one.",
    )
    yield from told(
        "same", "near_duplicates", Severity.info, "within a class and split", "DELETE one, if they are copies."
    )


def _left_out(upload: Mapping[str, Any]) -> Iterable[Finding]:
    """Return what the upload's reading rejected: by reason, with the files' names."""
    by_code: dict[str, list[Mapping[str, Any]]] = {}
    for one in upload.get("rejected", []):
        by_code.setdefault(one["code"], []).append(one)
    severities = {"conflicting_labels": Severity.error, "duplicate": Severity.info}
    for code, files in by_code.items():
        names = ", ".join(one["file"] for one in files[:3])
        message = f"{len(files)} files of the upload were left out, for instance {names}: {files[0]['reason']}"
        remedy = files[0]["remedy"] or "Nothing to do."
        yield _finding(code, severities.get(code, Severity.warning), message, remedy, count=len(files))


def _small_classes(counts: Mapping[str, Mapping[str, int]], images: Sequence[DatasetImage]) -> Iterable[Finding]:
    for split, least, what in (("train", _FEW, "to learn from"), ("val", _FEW_VAL, "to validate on")):
        few = {label: found.get(split, 0) for label, found in counts.items() if found.get(split, 0) < least}
        if few:
            named = ", ".join(f"{label} ({number})" for label, number in sorted(few.items())[:5])
            severity = Severity.error if split == "train" and 0 in few.values() else Severity.warning
            yield _finding(
                f"few_{split}_images",
                severity,
                f"{len(few)} classes have fewer than {least} images {what}: {named}.",
                "Add images of these classes, or merge or leave out classes.",
                (image.sha256 for image in images if image.split == split and image.label in few),
                count=len(few),
            )


def _imbalance(counts: Mapping[str, Mapping[str, int]]) -> Iterable[Finding]:
    sizes = {label: found.get("train", 0) for label, found in counts.items()}
    smallest, largest = min(sizes, key=sizes.__getitem__, default=""), max(sizes, key=sizes.__getitem__, default="")
    if sizes and sizes[largest] > _IMBALANCE * max(sizes[smallest], 1):
        yield _finding(
            "imbalance",
            Severity.warning,
            f"{largest} has {sizes[largest]} images in train and {smallest} has {sizes[smallest]}.",
            'Train with "imbalance": "weights" or "sampling", or add images of the rare classes.',
            count=len(sizes),
        )


def _odd_shapes(images: Sequence[DatasetImage]) -> Iterable[Finding]:
    if small := [image.sha256 for image in images if min(image.width, image.height) < _SMALL]:
        yield _finding(
            "small_images",
            Severity.info,
            f"{len(small)} images are smaller than {_SMALL} px on a side.",
            "Send larger ones if there are any; input_size may be as small as the images.",
            small,
        )
    if long := [i.sha256 for i in images if max(i.width, i.height) > _LONG * min(i.width, i.height)]:
        yield _finding(
            "long_images",
            Severity.info,
            f"{len(long)} images are more than {_LONG:g} times as long as they are wide, and are cropped to a square.",
            "Cut out what matters in them.",
            long,
        )
