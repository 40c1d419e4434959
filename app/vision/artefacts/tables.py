"""Writes tables as JSON lines and as CSV (RFC 4180)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def json_lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield a line a row."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


def csv_lines(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterator[bytes]:
    """Yield a heading, then a line a row with the values of these columns; None is nothing between two commas.

    A text that a spreadsheet would take for a formula, since it begins with one of = + - @ tab CR, has an apostrophe
    before it, as OWASP advises against "CSV injection".
    """
    yield _csv_line(columns)
    for row in rows:
        yield _csv_line([row.get(name) for name in columns])  # rows of older models lack some


def _csv_line(values: Sequence[Any]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(
        [f"'{one}" if isinstance(one, str) and one.startswith(_FORMULA) else one for one in values]
    )
    return line.getvalue().encode()
