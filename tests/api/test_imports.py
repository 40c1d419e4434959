"""Datasets that are named instead of sent, over HTTP: accepted as a job, or refused by the field that is wrong."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import problem
from tests.support.services import OpenService, Service

NAMED: list[dict[str, Any]] = [
    {"url": f"https://images.example/{label}/{number}.jpg", "label": label}
    for label in ("ants", "bees")
    for number in range(3)
]


def test_a_list_of_addresses_is_accepted_as_a_job(api: Service) -> None:
    answer = api.write.post("/v1/datasets:import", json={"name": "pets", "urls": NAMED, "val_fraction": 0.4})
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{made['id']}"
    assert (made["name"], made["state"], made["upload"]["format"]) == ("pets", "processing", "urls")
    job = api.read.get(f"/v1/jobs/{made['job_id']}").json()
    assert (job["kind"], job["state"], job["spec"]["val_fraction"]) == ("ingest", "queued", 0.4)
    assert "images.example" not in str(job["spec"])  # thousands of addresses have no place in a job
    assert api.write.post(f"/v1/jobs/{job['id']}:cancel").json()["state"] == "cancelled"
    assert api.read.get("/v1/datasets/pets").json()["state"] == "failed"
    assert api.write.post("/v1/datasets:import", json={"name": "pets", "urls": NAMED}).status_code == 202
    problem(api.write.post("/v1/datasets:import", json={"name": "pets", "urls": NAMED}), 409, "name_taken", "name")


def test_a_repeated_call_makes_one_dataset(api: Service) -> None:
    sent = {"json": {"urls": NAMED}, "headers": {"Idempotency-Key": "once"}}
    first, again = (api.write.post("/v1/datasets:import", **sent) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert api.counts()["datasets"] == 1


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "invalid", None),
        ({"urls": NAMED, "folder": "/srv"}, "invalid", None),
        ({"urls": []}, "invalid", "urls"),
        ({"urls": [{"url": "https://e.org/a.jpg"}]}, "invalid", "urls.0.label"),
        ({"urls": [{"url": "https://e.org/a.jpg", "label": "a", "split": "dev"}]}, "invalid", "urls.0.split"),
        ({"urls": [{**one, "url": one["url"].replace("https", "http")} for one in NAMED]}, "no_images", None),
        ({"urls": NAMED[:3]}, "single_class", "ants"),
        ({"folder": "/etc"}, "folder_not_allowed", "folder"),
        ({"s3": "s3://bucket/prefix"}, "bucket_not_allowed", "s3"),
    ],
)
def test_what_cannot_be_imported_is_refused(api: Service, body: dict[str, Any], code: str, field: str | None) -> None:
    problem(api.write.post("/v1/datasets:import", json=body), 422, code, field)
    assert api.counts()["datasets"] == 0


def test_only_what_the_operator_names_may_be_read(make_api: OpenService, tmp_path: Path) -> None:
    api = make_api(import_folders=f"{tmp_path}/open, /srv/none", import_buckets="images/pets,all-of-it")

    def answer(**named: str) -> Any:
        return api.write.post("/v1/datasets:import", json=named)

    for folder in (tmp_path, f"{tmp_path}/open/../closed", f"{tmp_path}/opener", "open", "", "/", f"{tmp_path}/open\0"):
        problem(answer(folder=str(folder)), 422, "folder_not_allowed", remedy="GRAFT_IMPORT_FOLDERS")
    for bucket in ("s3://images", "s3://images/pets-old", "s3://images/pets/../x", "s3://other/pets", "images/pets"):
        problem(answer(s3=bucket), 422, "bucket_not_allowed", remedy="GRAFT_IMPORT_BUCKETS")
    for accepted in (
        answer(folder=f"{tmp_path}/open/pets"),
        answer(folder=f"{tmp_path}/open", name="all"),
        answer(s3="s3://images/pets/cats"),
        answer(s3="s3://all-of-it"),
    ):
        assert accepted.status_code == 202, accepted.text


def test_a_list_that_is_too_long_is_refused(make_api: OpenService) -> None:
    api = make_api(max_import_urls=5, max_import_bytes=2000)
    problem(api.write.post("/v1/datasets:import", json={"urls": NAMED}), 422, "too_many_urls", "urls")
    problem(api.write.post("/v1/datasets:import", json={"urls": NAMED * 20}), 413, "too_large", "body")
