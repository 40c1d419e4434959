"""Ids are unique and tell the order in which they were made."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from app.core.ids import new_id, parse_id


def test_ids_are_version_7_and_sorted_by_when_they_were_made() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}
    assert type(made[0]) is UUID


def test_threads_make_different_ids() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [one for many in pool.map(lambda _: [new_id() for _ in range(2000)], range(4)) for one in many]
    assert len(set(made)) == 8000


def test_an_id_can_be_read_from_text() -> None:
    made = new_id()
    assert parse_id(str(made)) == made


@pytest.mark.parametrize("text", ["", "pets", "0190", "g" * 32, "\0"])
def test_other_text_is_no_id(text: str) -> None:
    assert parse_id(text) is None
