"""This module reads what a file of labels says of one image, and checks it, whichever form the file has."""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import FieldError, Invalid
from app.datasets.formats.layout import MAX_LABEL, Placement, Skipped
from app.vision.data.folder_names import SPLIT_FOLDERS, Split

MAX_METADATA = 1 << 14  # bytes of JSON for one image; a few hundred boxes
_SPLITS = "train, val or test, or leave it empty"


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A file of labels says this of one image. `path` is as the file of labels says it; `folder` is where that file
    lies, "" at the top."""

    path: str
    folder: str
    label: str | None
    split: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""  # for people: labels.csv line 3


def place(found: LabelRow, split: Split | None = None) -> Placement | Skipped:
    """Check a line and return where it places its image. `split` counts where the line names none."""
    label = unicodedata.normalize("NFC", found.label or "")
    if not label.strip():
        return _left_out(found, "no_label", "names no label", "Write the image's class there.")
    if problem := unusable_text(label):
        return _left_out(found, "bad_label", f"has a label that {problem}", "Use plain text.")
    given = (found.split or "").strip()
    if given and given.lower() not in SPLIT_FOLDERS:
        return _left_out(found, "bad_split", f"has the split {given[:60]!r}", f"Use {_SPLITS}.")
    if reserved := {"path", "label", "split"} & {key.lower() for key in found.metadata}:
        return _left_out(found, "bad_metadata", f"has metadata named {min(reserved)}", "Give it another name.")
    try:
        size = len(json.dumps(found.metadata, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        return _left_out(found, "bad_metadata", "has further columns that are no plain JSON", "Use text and numbers.")
    if size > MAX_METADATA:
        reason = f"has {size} bytes of further columns, more than {MAX_METADATA}"
        return _left_out(found, "metadata_too_large", reason, "Keep what describes the image elsewhere.")
    return Placement(label, SPLIT_FOLDERS[given.lower()] if given else split, dict(found.metadata))


def unusable_text(text: str) -> str | None:
    """Return why a label cannot stand in a file, a database and a terminal alike."""
    if len(text) > MAX_LABEL:
        return f"is longer than {MAX_LABEL} characters"
    kinds = {unicodedata.category(character) for character in text}
    if "Cc" in kinds:
        return "contains a control character"
    return "is not valid UTF-8" if "Cs" in kinds else None


def malformed(name: str, why: str) -> Invalid:
    """Return the error for a file of labels that cannot be read as a whole."""
    message = f"{name} cannot be read: {why}. Mend the file and upload the archive again."
    return Invalid(message, code="malformed_labels", errors=[FieldError(name, message, "malformed_labels")])


def only_plain(value: str) -> float:
    """Refuse NaN and Infinity, which are no JSON: for `json.loads(parse_constant=…)`."""
    raise ValueError(f"{value} is no number in JSON")


def split_of_path(parts: Iterable[str]) -> Split | None:
    """Return the split that a folder or a file is named after: `val/…`, `instances_val2017.json`."""
    for part in parts:
        stem = part.rpartition(".")[0] or part
        words = "".join(c if c.isalpha() else " " for c in stem.lower()).split()
        for word in words:
            if word in SPLIT_FOLDERS:
                return SPLIT_FOLDERS[word]
    return None


def _left_out(found: LabelRow, code: str, reason: str, remedy: str) -> Skipped:
    return Skipped(found.path, code, f"{found.where or 'The file of labels'} {reason}.", remedy)
