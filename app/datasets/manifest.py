"""This module writes and reads the frozen manifest of a dataset version: canonical JSON lines, so that the same content
has the same hash."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

from app.core.errors import Malformed
from app.vision.data.folder_names import Split

FORMAT = "graftwork-manifest"
VERSION = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPLITS = get_args(Split)
_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class ManifestImage:
    """The manifest has one of these for each image. `name` is where it came from: not written and not compared, for a
    new name is no new content.

    `metadata` is plain JSON.
    """

    sha256: str
    label: str
    split: Split
    name: str = field(default="", compare=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest has a version's classes, sorted: a label's index here is its index in the logits. Items in the written
    order."""

    classes: tuple[str, ...]
    items: tuple[ManifestImage, ...]


def write_manifest(items: Iterable[ManifestImage], classes: Sequence[str]) -> bytes:
    """Return the canonical bytes, whatever the order of `items` and `classes`.

    A header line, then one line an item sorted by split, label and hash; UTF-8, keys sorted, no spaces, every line
    ended by a newline; `metadata` only where there is some. Raises `ValueError` for an item that is not of `classes`,
    or with a bad hash or split.
    """
    ordered = sorted(classes)
    if len(set(ordered)) != len(ordered):
        raise ValueError("the classes of a manifest are not unique")
    known = frozenset(ordered)
    rows = sorted(items, key=lambda item: (item.split, item.label, item.sha256))
    for item in rows:
        if problem := _problem(item.split, item.label, item.sha256, known):
            raise ValueError(problem)
    header = {"classes": ordered, "format": FORMAT, "version": VERSION}
    return "".join([_line(header), *(_line(_written(item)) for item in rows)]).encode()


def read_manifest(data: bytes) -> Manifest:
    """Return what `write_manifest` wrote; names come back empty.

    Raises `Malformed` (`malformed_manifest`), naming the line, for anything else.
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    with _malformed(1):
        classes = _read_header(lines[0])
    known = frozenset(classes)
    items = []
    for number, line in enumerate(lines[1:], start=2):
        with _malformed(number):
            items.append(_read_item(line, known))
    return Manifest(classes, tuple(items))


def manifest_sha256(data: bytes) -> str:
    """Return the version's hash: SHA-256 of the manifest's bytes, 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _read_header(line: bytes) -> tuple[str, ...]:
    header = json.loads(line)
    if (header["format"], header["version"]) != (FORMAT, VERSION):
        raise ValueError(f"format {header['format']!r} version {header['version']!r} is not read here")
    classes = tuple(header["classes"])
    if list(classes) != sorted(set(classes)):
        raise ValueError("the classes are not sorted and unique")
    return classes


def _read_item(line: bytes, classes: frozenset[str]) -> ManifestImage:
    entry = json.loads(line)
    item = ManifestImage(entry["sha256"], entry["label"], entry["split"], metadata=dict(entry.get("metadata", {})))
    if problem := _problem(item.split, item.label, item.sha256, classes):
        raise ValueError(problem)
    return item


def _written(item: ManifestImage) -> dict[str, Any]:
    line: dict[str, Any] = {"label": item.label, "sha256": item.sha256, "split": item.split}
    # Left out where there is none, so that the versions of datasets without any keep their hash.
    return line | {"metadata": item.metadata} if item.metadata else line


@contextmanager
def _malformed(number: int) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Malformed(
            f"Line {number} of the manifest cannot be read ({error!r}). Restore it from a backup, or freeze the "
            "dataset again.",
            code="malformed_manifest",
        ) from error


def _line(value: dict[str, Any]) -> str:
    return _CANONICAL.encode(value) + "\n"


def _problem(split: str, label: str, sha256: str, classes: frozenset[str]) -> str | None:
    if label not in classes:
        return f"the label {label!r} is not among the classes"
    if split not in _SPLITS:
        return f"the split {split!r} is none of {', '.join(_SPLITS)}"
    if not _SHA256.fullmatch(sha256):
        return f"{sha256!r} is no SHA-256 in lower-case hexadecimal"
    return None
