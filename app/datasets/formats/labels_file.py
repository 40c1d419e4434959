"""This module reads `labels.csv` and `labels.jsonl`: a path, a label, perhaps a split, and whatever else is known of
each image."""

import csv
import io
import json
from collections.abc import Iterator

from app.datasets.formats.label_rows import LabelRow, malformed, only_plain

NAMES = ("labels.csv", "labels.jsonl")
_PATH, _LABEL, _SPLIT = ("path", "file", "filename", "file_name"), ("label", "class"), ("split",)
_EXAMPLE = "path,label,split"


def read_labels(name: str, data: bytes) -> Iterator[LabelRow]:
    """Return the lines of the file at `name` in the archive. Raises `Invalid` (`malformed_labels`) naming the line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(name, f"byte {error.start} is not UTF-8") from None
    if "\0" in text:
        raise malformed(name, "it contains NUL, which no text does")
    yield from _read_csv(name, text) if name.lower().endswith(".csv") else _read_json_lines(name, text)


def _read_csv(name: str, text: str) -> Iterator[LabelRow]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        columns = {role: _column(name, header, names) for role, names in (("path", _PATH), ("label", _LABEL))}
        split = next((at for at, column in enumerate(header) if column.lower() in _SPLIT), None)
        rest = [at for at in range(len(header)) if at not in (*columns.values(), split) and header[at]]
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise malformed(
                    name, f"line {reader.line_num} has {len(row)} columns where the header has {len(header)}"
                )
            yield LabelRow(
                row[columns["path"]],
                name.rpartition("/")[0],
                row[columns["label"]].strip(),
                row[split] if split is not None else None,
                {header[at]: row[at] for at in rest if row[at] != ""},
                f"{name} line {reader.line_num}",
            )
    except csv.Error as error:
        raise malformed(name, f"line {reader.line_num}: {error}") from None


def _column(name: str, header: list[str], names: tuple[str, ...]) -> int:
    found = [at for at, column in enumerate(header) if column.lower() in names]
    if len(found) != 1:
        raise malformed(name, f"its first line has {len(found)} columns named {names[0]}; it begins like {_EXAMPLE}")
    return found[0]


def _read_json_lines(name: str, text: str) -> Iterator[LabelRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line, parse_constant=only_plain)
        except (ValueError, RecursionError) as error:
            raise malformed(name, f"line {number} is no JSON ({str(error)[:100]})") from None
        if not isinstance(entry, dict):
            raise malformed(name, f"line {number} is no JSON object")
        path, label, split = (_text(name, number, entry, names) for names in (_PATH, _LABEL, _SPLIT))
        if path is None:
            raise malformed(name, f'line {number} has no "path"')
        yield LabelRow(path, name.rpartition("/")[0], label, split, entry, f"{name} line {number}")


def _text(name: str, number: int, entry: dict[str, object], names: tuple[str, ...]) -> str | None:
    """Take the first of `names` out of the line; a label may be a number."""
    for key in [key for key in entry if key.lower() in names]:
        value = entry.pop(key)
        if value is None:
            return None
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        raise malformed(name, f"line {number}: {key} is {str(value)[:60]!r} and no text")
    return None
