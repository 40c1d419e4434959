"""A workspace's events over HTTP: all that happens is told, in order, to those who may know."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import httpx2
import pytest

from app.auth.schemas import Scope
from app.core.settings import Settings
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES, problem
from tests.support.images import jpeg, photo
from tests.support.services import OpenService, Service, open_service


def listed(api: Service, after: int = 0, caller: Any = None) -> list[dict[str, Any]]:
    """All events, over as many pages as it takes."""
    items: list[dict[str, Any]] = []
    cursor: Any = after
    while cursor is not None:
        page = (caller or api.read).get(f"/v1/events?limit=3&after={cursor}").json()
        items += page["items"]
        cursor = page["next_cursor"]
    return items


def topics(items: list[dict[str, Any]]) -> list[str]:
    return [one["topic"] for one in items]


def test_what_happens_to_a_dataset_is_told(api: Service) -> None:
    dataset = api.dataset("pets")
    image = {"file": ("new.jpg", jpeg(photo(0, 99)))}
    added = api.write.post(f"/v1/datasets/{dataset}/images", files=image, data={"labels": '[{"label": "ants"}]'})
    assert [one["status"] for one in added.json()["items"]] == ["added"]
    version = api.write.post(f"/v1/datasets/{dataset}/versions").json()
    assert api.write.delete(f"/v1/datasets/{dataset}").status_code == 204
    items = [one for one in listed(api) if one["subject_id"] == dataset]
    assert topics(items) == [
        "dataset.created",
        "dataset.version",
        "dataset.ready",
        "dataset.version",
        "dataset.deleted",
    ]
    assert {one["body"]["name"] for one in items} == {"pets"}
    assert items[3]["body"] | {"number": 2, "version_id": version["id"]} == items[3]["body"]


def test_a_dataset_that_cannot_be_read_is_told_with_the_reason(api: Service) -> None:
    dataset = api.stage.upload(api.workspace, "pets")
    job = api.read.get(f"/v1/datasets/{dataset}").json()["job_id"]
    assert api.write.post(f"/v1/jobs/{job}:cancel").json()["state"] == "cancelled"
    items = listed(api)
    assert topics(items) == ["dataset.created", "job.state", "dataset.failed", "job.state"]
    assert items[2]["body"]["failure"]["reason"] == "cancelled"


def test_a_job_and_its_model_are_told(api: Service, trained: FitResult) -> None:
    api.dataset("pets")
    since = listed(api)[-1]["id"]
    job_id = api.training()
    job = api.stage.claim("train")
    assert job is not None
    model = str(api.stage.finish(job, trained, CLASSES))
    assert api.write.put("/v1/models/pets/aliases/best", json={"model": model}).status_code == 200
    assert api.write.delete("/v1/models/pets/aliases/best").status_code == 204
    assert api.write.delete(f"/v1/models/{model}").status_code == 204
    items = listed(api, since)
    assert [(one["topic"], one["subject_id"]) for one in items] == [
        ("job.state", job_id),
        ("job.state", job_id),
        ("model.created", model),
        ("job.state", job_id),
        ("model.aliased", model),
        ("model.unaliased", model),
        ("model.deleted", model),
    ]
    assert [one["body"]["state"] for one in items if one["topic"] == "job.state"] == ["queued", "running", "succeeded"]
    assert items[2]["body"] == {"name": "pets", "job_id": job_id}
    assert items[4]["body"] == {"name": "pets", "alias": "best"}
    assert [one["id"] for one in items] == sorted({one["id"] for one in items})


def test_keys_are_told_to_those_who_may_list_them(api: Service) -> None:
    since = listed(api, caller=api.admin)[-1]["id"]
    made = api.admin.post("/v1/keys", json={"name": "ci", "scopes": ["write"]}).json()
    for _ in range(2):  # the second time changes nothing
        assert api.admin.delete(f"/v1/keys/{made['id']}").status_code == 200
    items = listed(api, since, api.admin)
    assert [(one["topic"], one["subject_id"]) for one in items] == [
        ("key.created", made["id"]),
        ("key.revoked", made["id"]),
    ]
    assert items[0]["body"] == {"name": "ci", "prefix": made["prefix"], "scopes": ["write"]}
    assert made["secret"] not in json.dumps(items)
    for caller in (api.read, api.predict, api.write):
        assert listed(api, caller=caller) == []


def test_a_workspace_hears_nothing_of_another(api: Service, trained: FitResult) -> None:
    api.model(trained)
    stranger = api.beside()
    mine, theirs = listed(api, caller=api.admin), listed(stranger, caller=stranger.admin)
    assert set(topics(theirs)) == {"key.created"}
    assert not {one["id"] for one in mine} & {one["id"] for one in theirs}
    assert listed(stranger) == []
    assert listed(stranger, after=mine[0]["id"]) == []


@pytest.mark.parametrize(("query", "field"), [("after=-1", "after"), ("after=x", "after"), ("limit=0", "limit")])
def test_a_bad_question_is_refused(api: Service, query: str, field: str) -> None:
    problem(api.read.get(f"/v1/events?{query}"), 422, "invalid", field)
    if field == "after":
        problem(api.read.get(f"/v1/events/stream?{query}"), 422, "invalid", field)


def test_a_number_that_no_database_holds_is_refused(api: Service) -> None:
    problem(api.read.get(f"/v1/events?after={2**63}"), 422, "invalid", "after")
    assert api.read.get(f"/v1/events?after={2**63 - 1}").json() == {"items": [], "next_cursor": None}


# The stream, which has no end but that of its key: over a socket, where a client can leave.


def heard(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events as they come, each with the document that it holds."""
    current: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and current:
            yield current
            current = {}
        elif name in ("event", "id", "data"):
            current[name] = json.loads(value) if name == "data" else value


@pytest.fixture
def socketed(api: Service, settings: Settings) -> Iterator[httpx2.Client]:
    """The same service once more, behind a socket; its streams say at each look that they live."""
    with open_service(settings.model_copy(update={"stream_silence_seconds": 0}), "socket") as service:
        yield service.http


def test_a_stream_tells_what_happens_and_goes_on_where_it_broke_off(api: Service, socketed: httpx2.Client) -> None:
    api.dataset("pets")
    past = listed(api)
    secret = {"Authorization": f"Bearer {api.workspace.secrets[Scope.read]}"}
    with socketed.stream("GET", f"/v1/events/stream?after={past[1]['id']}", headers=secret) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = heard(response.iter_lines())
        found = [next(stream) for _ in past[2:]]
        assert [one["data"] for one in found] == past[2:]
        assert [(one["event"], one["id"]) for one in found] == [(one["topic"], str(one["id"])) for one in past[2:]]
        job = api.training()
        assert next(stream)["data"]["subject_id"] == job  # and then the connection breaks
    assert api.write.post(f"/v1/jobs/{job}:cancel").json()["state"] == "cancelled"
    headers = secret | {"Last-Event-ID": str(listed(api)[-2]["id"])}
    with socketed.stream("GET", "/v1/events/stream?after=0", headers=headers) as response:
        assert next(heard(response.iter_lines()))["data"]["body"]["state"] == "cancelled"


def test_a_stream_begins_with_what_is_new_and_ends_with_its_key(api: Service, socketed: httpx2.Client) -> None:
    api.dataset("pets")
    stranger = api.beside()
    made = api.admin.post("/v1/keys", json={"name": "listener", "scopes": ["read"]}).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    with socketed.stream("GET", "/v1/events/stream", headers=headers) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": still here"  # it has looked
        stranger.dataset("pets")
        job = api.training()
        stream = heard(lines)
        assert next(stream)["data"]["subject_id"] == job
        assert api.admin.delete(f"/v1/keys/{made['id']}").status_code == 200
        assert list(stream) == []  # of the key's end it is not told: that is for admins


def test_a_stream_ends_in_time(make_api: OpenService) -> None:
    api = make_api(stream_seconds=0.5)
    dataset = api.dataset("pets")
    with api.read.stream("/v1/events/stream?after=0") as response:
        subjects = [one["data"]["subject_id"] for one in heard(response.iter_lines())]
    assert dataset in subjects
