"""Keys over HTTP: made, shown once, listed, revoked."""

import hashlib

import pytest

from app.auth.orm import ApiKey
from app.auth.schemas import Scope
from tests.support.calls import Caller, is_uuid, problem
from tests.support.services import Service


def test_a_key_is_made_and_works(shared: Service) -> None:
    response = shared.admin.post("/v1/keys", json={"name": "ci", "scopes": ["read"]})
    assert response.status_code == 201
    made = response.json()
    assert response.headers["location"] == f"/v1/keys/{made['id']}"
    assert is_uuid(made["id"])
    assert (made["name"], made["scopes"], made["revoked_at"]) == ("ci", ["read"], None)
    assert made["secret"].startswith(made["prefix"])
    caller = Caller(shared.http, made["secret"])
    assert caller.get("/v1/jobs").status_code == 200
    assert caller.post("/v1/keys", json={"name": "more"}).status_code == 403


def test_a_key_may_write_unless_told_otherwise(shared: Service) -> None:
    assert shared.admin.post("/v1/keys", json={"name": "plain"}).json()["scopes"] == ["write"]


def test_a_secret_is_shown_once_and_kept_as_its_hash(api: Service) -> None:
    made = api.admin.post("/v1/keys", json={"name": "ci"}).json()
    secret = made["secret"]
    assert secret not in api.admin.get("/v1/keys").text
    assert all("secret" not in item for item in api.admin.get("/v1/keys").json()["items"])
    with api.stage.database.reading() as session:
        row = session.query(ApiKey).filter_by(name="ci").one()
        assert row.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    api.stage.database.close()
    assert secret.encode() not in (api.stage.settings.home / "graftwork.db").read_bytes()


def test_two_keys_are_never_the_same(shared: Service) -> None:
    secrets = {shared.admin.post("/v1/keys", json={"name": "twin"}).json()["secret"] for _ in range(5)}
    assert len(secrets) == 5


def test_keys_are_listed_newest_first_a_page_at_a_time(api: Service) -> None:
    made = [api.admin.post("/v1/keys", json={"name": f"key {n}"}).json()["id"] for n in range(5)]
    seen, cursor = [], None
    while True:
        page = api.admin.get("/v1/keys", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["items"]) == 2
    assert seen[:5] == made[::-1]
    assert len(seen) == len(set(seen)) == 5 + len(Scope)


def test_a_revoked_key_works_no_more_and_revoking_again_changes_nothing(shared: Service) -> None:
    made = shared.admin.post("/v1/keys", json={"name": "leaver", "scopes": ["admin"]}).json()
    revoked = shared.admin.delete(f"/v1/keys/{made['id']}")
    assert revoked.status_code == 200
    assert revoked.json()["revoked_at"] is not None
    problem(Caller(shared.http, made["secret"]).get("/v1/jobs"), 401, "key_revoked")
    assert shared.admin.delete(f"/v1/keys/{made['id']}").json() == revoked.json()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0"),
        ({"name": "x", "scope": "read"}, "scope"),
    ],
)
def test_a_key_that_cannot_be_is_refused(shared: Service, body: dict[str, object], field: str) -> None:
    before = len(shared.admin.get("/v1/keys?limit=200").json()["items"])
    problem(shared.admin.post("/v1/keys", json=body), 422, "invalid", field)
    assert len(shared.admin.get("/v1/keys?limit=200").json()["items"]) == before


def test_a_key_that_is_not_there_cannot_be_revoked(shared: Service) -> None:
    response = shared.admin.delete("/v1/keys/019a0000-0000-7000-8000-000000000000")
    problem(response, 404, "not_found", remedy="graft keys list")
