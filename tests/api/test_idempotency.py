"""A call that is sent again under its key makes nothing new and gets the first answer."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.auth.schemas import Scope
from app.vision.training.result import FitResult
from tests.support.calls import problem
from tests.support.images import folder_zip
from tests.support.services import OpenService, Service

ARCHIVE = folder_zip({"ants": 4, "bees": 4})
OTHER = folder_zip({"cats": 4, "dogs": 4})


def upload(api: Service, key: str, query: str = "?name=cars", archive: bytes = ARCHIVE) -> Any:
    return api.write.post(f"/v1/datasets{query}", content=archive, headers={"Idempotency-Key": key})


def submit(api: Service, key: str, **fields: Any) -> Any:
    return api.write.post("/v1/jobs", json={"dataset": "pets", **fields}, headers={"Idempotency-Key": key})


@pytest.fixture
def with_pets(api: Service) -> Service:
    api.dataset("pets")
    return api


@pytest.mark.parametrize("send", [upload, submit])
def test_the_same_call_again_gets_the_first_answer_and_makes_nothing(with_pets: Service, send: Any) -> None:
    first = send(with_pets, "k1")
    counts = with_pets.counts()
    again = send(with_pets, "k1")
    assert first.status_code == again.status_code == 202
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert with_pets.counts() == counts


@pytest.mark.parametrize("send", [upload, submit])
def test_another_key_or_none_makes_another(with_pets: Service, send: Any) -> None:
    first = send(with_pets, "k1").json()
    other = send(with_pets, "k2", **({"query": "?name=other"} if send is upload else {})).json()
    assert other["id"] != first["id"]


def test_the_same_key_with_another_body_is_refused(with_pets: Service) -> None:
    upload(with_pets, "k1")
    counts = with_pets.counts()
    for response in (
        upload(with_pets, "k1", archive=OTHER),
        upload(with_pets, "k1", query="?name=trucks"),
        upload(with_pets, "k1", query="?name=cars&seed=1"),
        submit(with_pets, "k1"),
    ):
        problem(response, 422, "idempotency_key_reused", "Idempotency-Key", "Use a new key")
    submit(with_pets, "k2")
    problem(submit(with_pets, "k2", seed=1), 422, "idempotency_key_reused", "Idempotency-Key", "Use a new key")
    assert with_pets.counts() == counts | {"trainings": 1}


def test_a_refused_call_leaves_its_key_free(with_pets: Service) -> None:
    assert submit(with_pets, "k1", dataset="nowhere").status_code == 422
    assert submit(with_pets, "k1").status_code == 202
    assert upload(with_pets, "k2", query="?name=pets").status_code == 409
    assert upload(with_pets, "k2").status_code == 202


def test_a_key_belongs_to_its_workspace(with_pets: Service) -> None:
    mine = upload(with_pets, "k1").json()
    other = with_pets.caller(with_pets.stage.workspace(), Scope.write)
    theirs = other.post("/v1/datasets?name=cars", content=ARCHIVE, headers={"Idempotency-Key": "k1"})
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine["id"]


@pytest.mark.parametrize("send", [upload, submit])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_calls_at_the_same_time_under_one_key_make_one(
    request: pytest.FixtureRequest, make_api: OpenService, kind: str, send: Any
) -> None:
    with_pets = make_api(database_url=request.getfixturevalue(f"{kind}_url"))
    with_pets.dataset("pets")
    before = with_pets.counts()
    with ThreadPoolExecutor(6) as pool:
        answers = [one.result(60) for one in [pool.submit(send, with_pets, "k1") for _ in range(6)]]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    after = with_pets.counts()
    made = {"datasets": 1, "ingestions": 1} if send is upload else {"trainings": 1}
    assert {name: after[name] - before[name] for name in after} == dict.fromkeys(after, 0) | made


def test_the_first_answer_is_given_though_things_have_moved_on(with_pets: Service, trained: FitResult) -> None:
    first = submit(with_pets, "k1").json()
    with_pets.write.post(f"/v1/jobs/{first['id']}:cancel")
    assert submit(with_pets, "k1").json() == first
    assert with_pets.read.get(f"/v1/jobs/{first['id']}").json()["state"] == "cancelled"


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_cannot_be_kept_is_refused(with_pets: Service, key: str) -> None:
    for response in (upload(with_pets, key), submit(with_pets, key)):
        problem(response, 422, "invalid", "Idempotency-Key")
