"""Lists by pages: newest first, each row once, whatever is added meanwhile."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.auth.orm import Workspace
from app.core.database import Database
from app.core.errors import Invalid
from app.core.ids import new_id
from app.core.paging import Page, paginate


def add(session: Session, *names: str) -> None:
    for name in names:
        session.add(Workspace(id=new_id(), name=name))
    session.flush()


def page(session: Session, limit: int, cursor: str | None = None) -> Page[Workspace]:
    return paginate(session, select(Workspace), Workspace.id, limit=limit, cursor=cursor)


def walk(session: Session, limit: int) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        found = page(session, limit, cursor)
        pages.append([row.name for row in found.items])
        cursor = found.next_cursor
        if cursor is None:
            return pages


@pytest.mark.parametrize(
    ("limit", "pages"),
    [
        (1, [["e"], ["d"], ["c"], ["b"], ["a"]]),
        (2, [["e", "d"], ["c", "b"], ["a"]]),
        (5, [["e", "d", "c", "b", "a"]]),
        (200, [["e", "d", "c", "b", "a"]]),
    ],
)
def test_all_pages_hold_each_row_once(database: Database, limit: int, pages: list[list[str]]) -> None:
    with database.writing() as session:
        add(session, *"abcde")
        assert walk(session, limit) == pages


def test_nothing_is_one_empty_page(database: Database) -> None:
    with database.reading() as session:
        assert walk(session, 3) == [[]]


def test_rows_added_meanwhile_move_nothing(database: Database) -> None:
    with database.writing() as session:
        add(session, *"abcd")
        first = page(session, 2)
        add(session, *"xyz")
        rest = page(session, 10, first.next_cursor)
    assert [row.name for row in [*first.items, *rest.items]] == ["d", "c", "b", "a"]


def test_a_row_that_goes_meanwhile_takes_no_other_with_it(database: Database) -> None:
    with database.writing() as session:
        add(session, *"abcd")
        first = page(session, 2)
        session.delete(first.items[-1])
        session.flush()
        rest = page(session, 10, first.next_cursor)
    assert [row.name for row in rest.items] == ["b", "a"]


@pytest.mark.parametrize("cursor", ["", "x", "not a cursor", "Käfer", "A" * 21, "A" * 43, "=", "\0", "?/&#"])
def test_a_bad_cursor_is_named(database: Database, cursor: str) -> None:
    with database.reading() as session, pytest.raises(Invalid) as caught:
        page(session, 2, cursor)
    assert caught.value.code == "bad_cursor"
    assert [error.field for error in caught.value.errors] == ["cursor"]
    assert repr(cursor) in caught.value.detail


def test_a_cursor_fits_in_a_query_string_as_it_is(database: Database) -> None:
    with database.writing() as session:
        add(session, *(str(number) for number in range(50)))
        cursors = {page(session, limit).next_cursor or "" for limit in range(1, 50)}
    assert len(cursors) == 49
    assert all(cursor.replace("-", "").replace("_", "").isalnum() for cursor in cursors)
