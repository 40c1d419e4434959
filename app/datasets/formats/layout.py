"""This module reads labels and splits from the folder names of an upload, and says what is wrong with the whole."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import FieldError, Invalid
from app.vision.data.folder_names import IMAGE_SUFFIXES, SPLIT_FOLDERS, Split

NO_SPLIT = ""  # in counts, where an upload brings no splits and none was drawn yet
MAX_CLASSES = 10_000
MAX_LABEL = 255  # characters; what a folder may be called on any common file system
EXAMPLE = "ants/1.jpg, ants/2.jpg, bees/3.jpg, bees/4.jpg (or the same below train/, val/ and test/)"

_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_MIN_IMAGES = 2  # one to learn from, one to validate on

_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """An upload places an image by its class, perhaps its split, and what else is known of it (plain JSON)."""

    label: str
    split: Split | None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file is left out: `code` is stable, and for people there is why and what to do."""

    name: str
    code: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout says where each file belongs. `ignored` counts the litter of file managers, which `skipped` does not
    name."""

    placements: dict[str, Placement]
    skipped: list[Skipped]
    has_split: bool
    ignored: int


def read_layout(names: Iterable[str]) -> Layout:
    """Place each of `names` (relative, with `/`). Pure: looks at names alone, and raises nothing.

    Folders that merely wrap the rest are stripped. Below them stand class folders, or split folders with class
    folders inside; whatever is nested deeper belongs to its class.
    """
    paths, skipped, ignored = _image_paths(names)
    root = _wrapping(list(paths.values()))
    depth = len(root)
    has_split = _is_split([path[depth:] for path in paths.values() if path[:depth] == root])

    placements: dict[str, Placement] = {}
    for name, path in paths.items():
        below = path[depth:] if path[:depth] == root else ()
        split = SPLIT_FOLDERS.get(below[0].lower()) if has_split and len(below) > 1 else None
        if has_split and split is None and len(below) > 1:
            reason = f"It lies beside the split folders, in {below[0]}/."
            skipped.append(Skipped(name, "outside_split", reason, "Move it below train/, val/ or test/."))
        elif len(below) < (3 if has_split else 2):
            remedy = f"Put it in a folder named after its class: {EXAMPLE}."
            skipped.append(Skipped(name, "no_class_folder", "It lies in no class folder.", remedy))
        else:
            placements[name] = Placement(label=below[1] if has_split else below[0], split=split)
    return Layout(placements, skipped, has_split, ignored)


def is_litter(name: str) -> bool:
    """Return whether a file is one that file managers write by themselves and nobody means to send."""
    return any(part.startswith(".") or part.lower() in _JUNK for part in name.split("/"))


def check_layout(layout: Layout) -> None:
    """Raise `Invalid` naming every reason why no model can be trained on this layout. See `check_counts`."""
    counts: dict[str, dict[str, int]] = {}
    for placement in layout.placements.values():
        by_split = counts.setdefault(placement.label, {})
        key = placement.split or NO_SPLIT
        by_split[key] = by_split.get(key, 0) + 1
    check_counts(counts, skipped=layout.skipped)


def check_counts(counts: Mapping[str, Mapping[str, int]], *, skipped: Sequence[Skipped] = ()) -> None:
    """Check how many images each label has in each split (`train`, `val`, `test`, or `NO_SPLIT`).

    Raises `Invalid` with all problems at once, each a `FieldError` whose field is the class, or `archive`. Codes:
    `no_images`, `too_many_classes`, `no_train_split`, `single_class`, `class_names_collide`, `class_name_too_long`,
    `class_too_small`, `class_missing_from_train`. The error's own code is theirs where all agree, otherwise
    `unusable_layout`.
    """
    filled = {label: {split: count for split, count in by_split.items() if count} for label, by_split in counts.items()}
    filled = {label: filled[label] for label in sorted(filled) if filled[label]}
    problems = [*_problems_of_all(filled, skipped), *_problems_of_classes(filled)]
    if problems:
        codes = {problem.code for problem in problems}
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        code = problems[0].code if len(codes) == 1 else "unusable_layout"
        raise Invalid(problems[0].message + more, code=code, errors=problems)


def _image_paths(names: Iterable[str]) -> tuple[dict[str, _Path], list[Skipped], int]:
    paths: dict[str, _Path] = {}
    skipped: list[Skipped] = []
    ignored = 0
    for name in names:
        path = tuple(name.split("/"))
        stem, _, suffix = path[-1].rpartition(".")
        if is_litter(name):
            ignored += 1
        elif stem and suffix.lower() in IMAGE_SUFFIXES:
            paths[name] = path
        else:
            what = f"ends in .{suffix}" if stem else "has no extension"
            remedy = "Send JPEG, PNG, WebP, BMP, TIFF or GIF, or leave it out."
            skipped.append(Skipped(name, "not_an_image", f"Its name {what}, which no image read here does.", remedy))
    return paths, skipped, ignored


def _wrapping(paths: list[_Path]) -> _Path:
    """Return the folders around the dataset: each the only one at its level, and holding mostly folders itself."""
    root: _Path = ()
    while True:
        below = [path[len(root) :] for path in paths if path[: len(root)] == root]
        folders = {path[0] for path in below if len(path) > 1}
        if len(folders) != 1:
            return root
        folder = folders.pop()
        direct = sum(len(path) == 2 for path in below)
        nested = sum(len(path) > 2 for path in below)
        # A folder with images of its own is a class, unless most lie deeper; one named train is a split.
        if folder.lower() in SPLIT_FOLDERS or nested <= direct:
            return root
        root = (*root, folder)


def _is_split(paths: list[_Path]) -> bool:
    """Return whether the folders at the top are splits. `train` may also be a class, beside `bus` and `tram`."""
    inside = [path for path in paths if len(path) > 1]
    named = [path for path in inside if path[0].lower() in SPLIT_FOLDERS]
    if len(named) == len(inside):
        return bool(named)
    with_classes = sum(len(path) > 2 for path in named)
    return with_classes * 2 > len(inside)


def _problems_of_all(counts: Mapping[str, Mapping[str, int]], skipped: Sequence[Skipped]) -> Iterable[FieldError]:
    if not counts:
        tally: dict[str, int] = {}
        for item in skipped:
            tally[item.code] = tally.get(item.code, 0) + 1
        left_out = "".join(f" Left out: {number} × {code}." for code, number in sorted(tally.items()))
        message = f"No usable image was found.{left_out} Expected one folder for each class: {EXAMPLE}."
        yield FieldError("archive", message, code="no_images")
        return
    if len(counts) > MAX_CLASSES:
        message = f"There are {len(counts)} classes, more than {MAX_CLASSES}. Merge classes, or check the layout."
        yield FieldError("archive", message, code="too_many_classes")
    if len(counts) == 1:
        (label,) = counts
        message = f"All images are of one class, {label}. Telling images apart takes at least two: {EXAMPLE}."
        yield FieldError(label, message, code="single_class")
    if _lacks_train(counts):
        message = "There are val or test images but none in train. Add a train/ folder, or leave the splits out."
        yield FieldError("archive", message, code="no_train_split")


def _problems_of_classes(counts: Mapping[str, Mapping[str, int]]) -> Iterable[FieldError]:
    has_split = any(split != NO_SPLIT for by_split in counts.values() for split in by_split)
    first_spelling: dict[str, str] = {}
    for label, by_split in counts.items():
        if (other := first_spelling.setdefault(label.casefold(), label)) != label:
            message = f"The classes {other} and {label} differ in case alone. Use one spelling."
            yield FieldError(label, message, code="class_names_collide")
        if len(label) > MAX_LABEL:
            message = f"This class has a name of {len(label)} characters, more than {MAX_LABEL}. Rename its folder."
            yield FieldError(f"{label[:60]}…", message, code="class_name_too_long")
        if has_split and not by_split.get("train"):
            if not _lacks_train(counts):
                where = ", ".join(sorted(by_split))
                message = f"The class {label} is in {where} but not in train. Add train images, or leave it out."
                yield FieldError(label, message, code="class_missing_from_train")
            continue
        usable = sum(count for split, count in by_split.items() if split != "test")
        if usable < _MIN_IMAGES:
            message = (
                f"The class {label} has {usable} usable image{'s' if usable != 1 else ''} to train and validate on; "
                f"{_MIN_IMAGES} are the least. Add images, or leave the class out."
            )
            yield FieldError(label, message, code="class_too_small")


def _lacks_train(counts: Mapping[str, Mapping[str, int]]) -> bool:
    splits = {split for by_split in counts.values() for split in by_split}
    return bool(splits) and NO_SPLIT not in splits and "train" not in splits
