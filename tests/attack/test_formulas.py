"""Cells that a spreadsheet would compute: no text of a caller's is one in any CSV that is downloaded."""

import csv
import io

import pytest

from app.predictions.batch.rows import result_csv
from app.vision.artefacts.tables import csv_lines

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("http://x"; "a, b")', "=cmd|' /C calc'!A0"]
COLUMNS = ("image", "split", "true", "predicted", "probability", "ood_score")


def read(lines: object) -> list[list[str]]:
    text = b"".join(lines).decode()  # type: ignore[arg-type]
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_a_text(text: str) -> None:
    row = {"image": text, "split": "val", "true": text, "predicted": text, "probability": -0.5, "ood_score": None}
    _, (image, _, true, predicted, probability, *_) = read(csv_lines([row], COLUMNS))
    assert [image, true, predicted] == [f"'{text}"] * 3
    assert probability == "-0.5"  # a number is one


@pytest.mark.parametrize("text", FORMULAS)
def test_so_it_is_in_the_rows_of_a_job_that_predicts(text: str) -> None:
    row = {
        "image": "00",
        "id": text,
        "split": "val",
        "label": text,
        "status": "ok",
        "predictions": [{"label": text, "probability": 0.5}],
        "probabilities": {text: 0.5},
    }
    heading, cells = read(result_csv([row], [text]))
    assert not [one for one in (*heading, *cells) if one.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert cells.count(f"'{text}") == 3


def test_plain_texts_stay_as_they_are() -> None:
    row = {"image": "a=b", "true": "an 'ant', or two", "predicted": "x-y"}
    _, cells = read(csv_lines([row], COLUMNS))
    assert [cells[0], cells[2], cells[3]] == ["a=b", "an 'ant', or two", "x-y"]
