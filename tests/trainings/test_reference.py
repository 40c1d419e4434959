"""The guide's tables are those that the code makes, and a broken mark in the guide is named."""

import re
from pathlib import Path

import pytest

from app.trainings.reference import with_tables

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


def test_the_guide_is_fresh() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert with_tables(text) == text, "docs/guide.md is older than the code: run `make docs`"


def test_a_stale_row_is_made_anew() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    stale = re.sub(r"\| `epochs` \|.*\n", "| `epochs` | whole number 1 to 7 |\n| `gone` | a text |\n", text)
    assert stale != text
    assert with_tables(stale) == text


def test_a_guide_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="the place for the table of training fields is not marked once by <!-- train"):
        with_tables("# Guide\n")
    marked = GUIDE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="of transforms is not marked once"):
        with_tables(marked.replace("<!-- end of transforms -->", ""))
