"""This module finds the label of each image of an archive: by a file of labels inside it, else by COCO or VOC
annotations, else by folders."""

import unicodedata
from collections.abc import Iterable, Sequence

from app.core.errors import FieldError, Invalid, TooLarge
from app.datasets.formats.archive import Member
from app.datasets.formats.coco import is_coco, read_coco
from app.datasets.formats.label_rows import LabelRow, malformed, place, split_of_path
from app.datasets.formats.labels_file import NAMES, read_labels
from app.datasets.formats.layout import Layout, Placement, Skipped, is_litter, read_layout
from app.datasets.formats.voc import FOLDER, is_split_list, read_split_list, read_voc
from app.datasets.intake.intake import RejectedFile
from app.vision.data.folder_names import IMAGE_SUFFIXES, Split

_MAX_BYTES = 128 << 20  # of all files of labels in one archive


def may_hold_labels(name: str) -> bool:
    """Return whether a file of this name can say what the images of its archive are."""
    if is_litter(name):
        return False
    file = name.rpartition("/")[2].lower()
    return file in NAMES or file.endswith((".json", ".xml")) or is_split_list(name)


def place_files(files: Iterable[Member]) -> Layout:
    """Return where each of the files belongs, by whichever description there is.

    Raises `Invalid` (`malformed_labels`, `labels_too_large`).
    """
    names, label_files, size = [], {}, 0
    for entry, read in files:
        names.append(entry.name)
        if may_hold_labels(entry.name):
            size += entry.size
            if size > _MAX_BYTES:
                raise _too_large(entry.name)
            try:
                label_files[entry.name] = read()
            except TooLarge:
                raise _too_large(entry.name) from None
            except RejectedFile as error:  # of a file that lies elsewhere
                raise malformed(entry.name, f"{error.reason} {error.remedy}") from None
    by_folders = read_layout(names)
    found = _rows_of(label_files, by_folders)
    return by_folders if found is None else _by_labels(found, by_folders, names)


def _rows_of(files: dict[str, bytes], by_folders: Layout) -> list[LabelRow] | None:
    """Return what files of labels or annotations say, or None where only the folders do."""
    if labels := [name for name in files if name.rpartition("/")[2].lower() in NAMES]:
        return [line for name in labels for line in read_labels(name, files[name])]
    if coco := [name for name, data in files.items() if name.lower().endswith(".json") and is_coco(data)]:
        return [line for name in coco for line in read_coco(name, files[name])]
    voc = [name for name in files if name.lower().endswith(".xml")]
    if any(FOLDER in name.lower().split("/")[:-1] for name in voc) or (voc and not by_folders.placements):
        splits: dict[str, Split] = {}
        for name in filter(is_split_list, files):
            splits |= read_split_list(name, files[name])
        return [read_voc(name, files[name], splits) for name in voc]
    return None


def _by_labels(lines: Sequence[LabelRow], by_folders: Layout, names: Sequence[str]) -> Layout:
    images = _Images(names)
    placements: dict[str, Placement] = {}
    refused: dict[str, Skipped] = {}
    missing: list[Skipped] = []
    for line in lines:
        name = images.find(line)
        if name is None:
            reason = f"{line.where} names it, and no one image of the archive is called that."
            missing.append(Skipped(line.path, "missing_file", reason, "Correct the path, or add the image."))
            continue
        placed = place(line)
        if isinstance(placed, Skipped):
            refused[name] = Skipped(name, placed.code, placed.reason, placed.remedy)
        elif placements.setdefault(name, placed) != placed and placements[name].label != placed.label:
            reason = f"{line.where} says {placed.label}, another line says {placements[name].label}."
            refused[name] = Skipped(name, "conflicting_labels", reason, "Keep the one label that is right.")
    kept = {name: placed for name, placed in placements.items() if name not in refused}
    unlisted = [
        Skipped(name, "not_listed", "The file of labels does not name it.", "Add a line for it, or leave it out.")
        for name in images.names
        if name not in placements and name not in refused
    ]
    has_split = any(placed.split is not None for placed in kept.values())
    return Layout(kept, [*refused.values(), *missing, *unlisted], has_split, by_folders.ignored)


class _Images:
    """This class finds the image that a path means: beside the file of labels, from the top, or the only one that ends
    so."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [name for name in names if _is_image(name)]
        self._known = frozenset(self.names)
        self._by_file: dict[str, list[str]] = {}
        for name in self.names:
            self._by_file.setdefault(name.rpartition("/")[2], []).append(name)

    def find(self, line: LabelRow) -> str | None:
        path = "/".join(part for part in _plain(line.path).split("/") if part not in ("", "."))
        for candidate in (f"{line.folder}/{path}".lstrip("/"), path):
            if candidate in self._known:
                return candidate
        ending = [name for name in self._by_file.get(path.rpartition("/")[2], []) if f"/{name}".endswith(f"/{path}")]
        return ending[0] if len(ending) == 1 else _nearest(ending, line)


def _nearest(names: list[str], line: LabelRow) -> str | None:
    """Return the one of several that is below the file of labels, or in the folder of the line's split."""
    below = [name for name in names if line.folder and name.startswith(f"{line.folder}/")]
    for some in (below, [name for name in names if line.split and _split_of(name) == line.split]):
        if len(some) == 1:
            return some[0]
    return None


def _split_of(name: str) -> Split | None:
    return split_of_path(name.split("/")[:-1])


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path.replace("\\", "/").strip())


def _is_image(name: str) -> bool:
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and suffix.lower() in IMAGE_SUFFIXES and not is_litter(name)


def _too_large(name: str) -> Invalid:
    message = (
        f"{name}: the files of labels are larger than {_MAX_BYTES} bytes together, or one is larger than "
        "GRAFT_MAX_FILE_BYTES. Upload the dataset in several parts."
    )
    return Invalid(message, code="labels_too_large", errors=[FieldError(name, message, "labels_too_large")])
