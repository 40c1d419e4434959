"""Workspaces and API keys: made, recognised, revoked; a secret is kept as its hash alone."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError
from sqlalchemy import func, inspect, select

from app.auth import service as auth
from app.auth.orm import ApiKey, Workspace
from app.auth.schemas import CreatedKey, KeyOut, NewKey, Scope
from app.auth.service import Principal
from app.core.database import Database
from app.core.errors import Forbidden, NotFound, Unauthenticated
from app.core.ids import new_id
from tests.support.factories import workspace


def test_a_secret_opens_its_own_workspace(database: Database) -> None:
    with database.writing() as session:
        ours, theirs = workspace(session), workspace(session, "theirs")
        key, secret = auth.create_key(session, ours.id, "ci", [Scope.write])
        _, other = auth.create_key(session, theirs.id, "ci", [Scope.read, Scope.predict])
    with database.reading() as session:
        assert auth.authenticate(session, f"Bearer {secret}") == Principal(ours.id, key.id, frozenset({Scope.write}))
        found = auth.authenticate(session, f"bearer {other} ")
    assert (found.workspace_id, found.scopes) == (theirs.id, {Scope.read, Scope.predict})


def test_only_the_hash_of_a_secret_is_kept(database: Database) -> None:
    with database.writing() as session:
        _, secret = auth.create_key(session, workspace(session).id, "ci", [Scope.read])
    with database.reading() as session:
        row = session.scalars(select(ApiKey)).one()
        values = [str(getattr(row, column.key)) for column in inspect(ApiKey).column_attrs]
    assert row.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert not any(secret[10:20] in value for value in values)
    assert secret.startswith(row.prefix)
    assert len(secret) >= 40


def test_secrets_differ(database: Database) -> None:
    with database.writing() as session:
        mine = workspace(session).id
        assert len({auth.create_key(session, mine, "same", [Scope.read])[1] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer gw_",
        "Bearer gw_wrong",
        "Basic Z3c6Z3c=",
        "gw_wrong",
        "Bearer sk-x",
        "\xff",
    ],
)
def test_nothing_else_opens_anything(database: Database, header: str | None) -> None:
    with database.writing() as session:
        auth.create_key(session, workspace(session).id, "ci", [Scope.admin])
    with database.reading() as session, pytest.raises(Unauthenticated, match="graft keys create") as caught:
        auth.authenticate(session, header)
    assert (caught.value.status, caught.value.code) == (401, "unauthenticated")


def test_neither_the_hash_nor_a_part_of_the_secret_opens(database: Database) -> None:
    with database.writing() as session:
        key, secret = auth.create_key(session, workspace(session).id, "ci", [Scope.admin])
    for wrong in (key.secret_sha256, f"gw_{key.secret_sha256}", secret[:-1], secret + "x", secret.upper(), key.prefix):
        with database.reading() as session, pytest.raises(Unauthenticated):
            auth.authenticate(session, f"Bearer {wrong}")


def test_a_revoked_key_is_closed_for_good(database: Database) -> None:
    with database.writing() as session:
        mine = workspace(session).id
        key, secret = auth.create_key(session, mine, "old laptop", [Scope.admin])
        _, kept = auth.create_key(session, mine, "new laptop", [Scope.admin])
    with database.writing() as session:
        revoked_at = auth.revoke_key(session, mine, key.id).revoked_at
    assert revoked_at is not None
    with database.writing() as session:
        assert auth.revoke_key(session, mine, key.id).revoked_at == revoked_at
    with database.reading() as session:
        with pytest.raises(Unauthenticated, match=r"old laptop.*was revoked") as caught:
            auth.authenticate(session, f"Bearer {secret}")
        assert auth.authenticate(session, f"Bearer {kept}").workspace_id == mine
    assert caught.value.code == "key_revoked"
    assert secret not in caught.value.detail


def test_a_key_of_another_workspace_is_not_there(database: Database) -> None:
    with database.writing() as session:
        ours, theirs = workspace(session).id, workspace(session, "theirs").id
        key, secret = auth.create_key(session, theirs, "ci", [Scope.read])
        for key_id in (key.id, new_id()):
            with pytest.raises(NotFound):
                auth.revoke_key(session, ours, key_id)
        assert auth.list_keys(session, ours, limit=10, cursor=None).items == []
        assert [one.id for one in auth.list_keys(session, theirs, limit=10, cursor=None).items] == [key.id]
        assert auth.authenticate(session, f"Bearer {secret}").workspace_id == theirs


@pytest.mark.parametrize(
    ("has", "may"),
    [
        ([Scope.read], {Scope.read}),
        ([Scope.predict], {Scope.read, Scope.predict}),
        ([Scope.write], {Scope.read, Scope.predict, Scope.write}),
        ([Scope.admin], set(Scope)),
        ([Scope.read, Scope.predict], {Scope.read, Scope.predict}),
    ],
)
def test_what_a_scope_covers(has: list[Scope], may: set[Scope]) -> None:
    principal = Principal(new_id(), new_id(), frozenset(has))
    for needed in Scope:
        if needed in may:
            principal.require(needed)
        else:
            with pytest.raises(Forbidden, match=f"this call needs '{needed}'") as caught:
                principal.require(needed)
            assert (caught.value.status, caught.value.code) == (403, "missing_scope")


def test_scopes_are_kept_once_each(database: Database) -> None:
    with database.writing() as session:
        key, _ = auth.create_key(session, workspace(session).id, "ci", [Scope.write, Scope.read, Scope.write])
    assert key.scopes == ["write", "read"]


def test_a_workspace_is_made_once(database: Database) -> None:
    with database.writing() as session:
        first = auth.ensure_workspace(session)
    with database.writing() as session:
        assert auth.ensure_workspace(session).id == first.id
        assert auth.ensure_workspace(session, "other").id != first.id
    assert first.name == "default"


def test_threads_that_race_for_a_workspace_get_the_same(database: Database) -> None:
    together = threading.Barrier(4)

    def ensure() -> Workspace:
        with database.writing() as session:
            session.connection() if database.url.get_backend_name() == "postgresql" else None
            together.wait()
            return auth.ensure_workspace(session, "raced")

    with ThreadPoolExecutor(4) as pool:
        found = {future.result().id for future in [pool.submit(ensure) for _ in range(4)]}
    assert len(found) == 1
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Workspace)) == 1


def test_the_second_of_two_that_make_a_workspace_waits_for_the_first(database: Database) -> None:
    """Its transaction goes on, with what it had written before."""
    begun = threading.Event()

    def second() -> Workspace:
        begun.set()
        with database.writing() as session:
            before = auth.ensure_workspace(session, "before")
            raced = auth.ensure_workspace(session, "raced")
            assert before.id != raced.id
            return raced

    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            first = auth.ensure_workspace(session, "raced")
            future = pool.submit(second)
            begun.wait()
        assert future.result().id == first.id
    with database.reading() as session:
        assert set(session.scalars(select(Workspace.name))) == {"before", "raced"}


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": "x" * 101}, {"name": "a\0b"}, {"name": "a", "scopes": []}, {"name": "a", "id": 1}],
)
def test_a_key_that_cannot_be_asked_for(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NewKey.model_validate(body)


def test_the_secret_is_shown_with_a_new_key_alone() -> None:
    assert NewKey(name="ci").scopes == [Scope.write]
    assert set(CreatedKey.model_fields) - set(KeyOut.model_fields) == {"secret"}
    assert "secret_sha256" not in KeyOut.model_fields
