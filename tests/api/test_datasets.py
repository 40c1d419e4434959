"""Datasets over HTTP: sent, read, listed, deleted."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.vision.training.result import FitResult
from tests.support.calls import is_uuid, problem
from tests.support.images import folder_tar, folder_tar_zst, folder_zip, jpeg, photo
from tests.support.services import Service

ARCHIVE = folder_zip({"ants": 5, "bees": 5})


def test_an_upload_is_accepted_and_says_where_to_look(api: Service) -> None:
    response = api.write.post("/v1/datasets?name=pets", content=ARCHIVE)
    assert response.status_code == 202
    made = response.json()
    assert response.headers["location"] == f"/v1/datasets/{made['id']}"
    assert is_uuid(made["id"])
    assert (made["name"], made["state"], made["progress"]) == ("pets", "processing", 0)
    assert (made["version"], made["report"], made["failure"]) == (None, None, None)
    assert made["upload"] == {
        "bytes": len(ARCHIVE),
        "sha256": hashlib.sha256(ARCHIVE).hexdigest(),
        "format": "zip",
        "filename": None,
    }
    assert api.read.get(response.headers["location"]).json() == made
    job = api.read.get(f"/v1/jobs/{made['job_id']}").json()
    assert (job["kind"], job["state"], job["dataset_id"]) == ("ingest", "queued", made["id"])
    assert api.scratch() == []


@pytest.mark.parametrize(
    ("archive", "kind"),
    [
        (ARCHIVE, "zip"),
        (folder_tar({"ants": 5, "bees": 5}), "tar.gz"),
        (folder_tar({"ants": 5, "bees": 5}, compress=False), "tar"),
        (folder_tar_zst({"ants": 5, "bees": 5}), "tar.zst"),
    ],
)
@pytest.mark.parametrize("how", ["body", "form"])
def test_each_format_comes_as_a_body_or_a_form_and_is_read(
    working: Service, archive: bytes, kind: str, how: str
) -> None:
    sent: dict[str, Any] = {"files": {"file": ("My pets.v2.zip", archive)}} if how == "form" else {"content": archive}
    made = working.write.post("/v1/datasets", **sent).json()
    assert made["upload"]["format"] == kind
    assert made["upload"]["sha256"] == hashlib.sha256(archive).hexdigest()
    # The name of the file, as far as it will do, or of the content.
    assert made["name"] == ("My-pets" if how == "form" else f"dataset-{made['upload']['sha256'][:8]}")
    dataset = working.read.get(f"/v1/datasets/{made['id']}?wait=60").json()
    assert (dataset["state"], dataset["progress"]) == ("ready", 1)
    assert dataset["version"]["classes"] == ["ants", "bees"]
    assert dataset["version"]["number"] == 1
    assert dataset["version"]["counts"] == {"train": {"ants": 4, "bees": 4}, "val": {"ants": 1, "bees": 1}}
    assert (dataset["report"]["accepted"], dataset["report"]["rejected_count"]) == (10, 0)


def test_a_file_is_put_under_its_name(api: Service) -> None:
    answer = api.write.put("/v1/datasets/pets.tar.gz?val_fraction=0.4", content=folder_tar({"ants": 5, "bees": 5}))
    assert (answer.status_code, answer.json()["name"]) == (202, "pets")
    api.stage.read_uploads()
    assert api.read.get("/v1/datasets/pets").json()["state"] == "ready"
    problem(api.write.put("/v1/datasets/pets.zip", content=ARCHIVE), 409, "name_taken", "name")
    problem(api.write.put("/v1/datasets/.zip", content=ARCHIVE), 422, "invalid", "dataset_id")
    problem(api.write.put("/v1/datasets/b.zip?test_fraction=0.85", content=ARCHIVE), 422, "invalid", "test_fraction")
    assert api.counts()["datasets"] == 1


def test_the_same_images_have_the_same_version_whatever_packed_them(working: Service) -> None:
    split = {"train": 3, "val": 2}
    archives = {"a": folder_zip({"ants": 0, "bees": 0}, split), "b": folder_tar({"ants": 0, "bees": 0}, split)}
    hashes = set()
    for name, archive in archives.items():
        made = working.write.post(f"/v1/datasets?name={name}", content=archive).json()
        hashes.add(working.read.get(f"/v1/datasets/{made['id']}?wait=60").json()["version"]["sha256"])
    assert len(hashes) == 1


def test_wait_answers_when_the_upload_has_been_read(api: Service) -> None:
    made = api.write.post("/v1/datasets?name=pets", content=ARCHIVE).json()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.read.get, f"/v1/datasets/{made['id']}?wait=60")
        api.stage.read_uploads()
        assert waiting.result(60).json()["state"] == "ready"


def test_wait_gives_up_after_its_time(api: Service) -> None:
    made = api.write.post("/v1/datasets?name=pets", content=ARCHIVE).json()
    response = api.read.get(f"/v1/datasets/{made['id']}?wait=0.3")
    assert (response.status_code, response.json()["state"]) == (200, "processing")


def test_a_dataset_is_found_by_id_and_by_name(api: Service) -> None:
    dataset = api.dataset("pets")
    assert api.read.get(f"/v1/datasets/{dataset}").json() == api.read.get("/v1/datasets/pets").json()
    problem(api.read.get("/v1/datasets/cars"), 404, "not_found", remedy="GET /v1/datasets")


def test_datasets_are_listed_newest_first_a_page_at_a_time(api: Service) -> None:
    made = [api.write.post(f"/v1/datasets?name=d{n}", content=ARCHIVE).json()["id"] for n in range(5)]
    seen, cursor, sizes = [], None, []
    while True:
        page = api.read.get("/v1/datasets", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [item["id"] for item in page["items"]]
        sizes.append(len(page["items"]))
        cursor = page["next_cursor"]
        if cursor is None:
            break
        if len(sizes) == 1:  # what comes later does not move the pages
            api.write.post("/v1/datasets?name=late", content=ARCHIVE)
    assert seen == made[::-1]
    assert sizes == [2, 2, 1]
    assert [item["name"] for item in api.read.get("/v1/datasets?name=d3").json()["items"]] == ["d3"]
    assert api.read.get("/v1/datasets?name=none").json() == {"items": [], "next_cursor": None}


def test_an_exact_page_is_the_last(api: Service) -> None:
    for n in range(2):
        api.write.post(f"/v1/datasets?name=d{n}", content=ARCHIVE)
    assert api.read.get("/v1/datasets?limit=2").json()["next_cursor"] is None


def test_a_deleted_dataset_is_gone_and_its_name_free(api: Service) -> None:
    dataset = api.dataset("pets")
    response = api.write.delete("/v1/datasets/pets")
    assert (response.status_code, response.content) == (204, b"")
    for reference in (dataset, "pets"):
        problem(api.read.get(f"/v1/datasets/{reference}"), 404, "not_found")
        problem(api.write.delete(f"/v1/datasets/{reference}"), 404, "not_found")
        problem(api.write.post("/v1/jobs", json={"dataset": reference}), 422, "unknown_dataset", "dataset")
    assert api.counts()["datasets"] == 0
    assert api.dataset("pets") != dataset


def test_a_dataset_in_use_stays(api: Service) -> None:
    dataset = api.dataset("pets")
    waiting = api.training("pets")
    body = problem(api.write.delete("/v1/datasets/pets"), 409, "dataset_in_use", remedy="Cancel them or wait")
    assert waiting in body["detail"]
    running = api.stage.claim("train")
    assert running is not None
    problem(api.write.delete(f"/v1/datasets/{dataset}"), 409, "dataset_in_use")
    assert api.read.get("/v1/datasets/pets").status_code == 200
    api.write.post(f"/v1/jobs/{waiting}:cancel")
    problem(api.write.delete("/v1/datasets/pets"), 409, "dataset_in_use")  # it is stopping, and not stopped


def test_a_dataset_whose_jobs_have_ended_may_go_and_the_model_stays(api: Service, trained: FitResult) -> None:
    model = api.model(trained)
    assert api.write.delete("/v1/datasets/pets").status_code == 204
    assert api.read.get(f"/v1/models/{model}").status_code == 200


def test_deleting_a_dataset_that_is_being_read_cancels_that(api: Service) -> None:
    made = api.write.post("/v1/datasets?name=pets", content=ARCHIVE).json()
    assert api.write.delete("/v1/datasets/pets").status_code == 204
    assert api.read.get(f"/v1/jobs/{made['job_id']}").json()["state"] == "cancelled"
    assert api.stage.claim("ingest") is None


def test_labels_in_a_file_are_read_and_what_is_wrong_with_them_is_told(working: Service) -> None:
    images = {f"{n}.jpg": jpeg(photo(n % 2, n)) for n in range(8)}
    lines = [f"{n}.jpg,{('ants', 'bees')[n % 2]},{'val' if n > 5 else 'train'}" for n in range(8)]
    archive = folder_zip(images | {"labels.csv": "\n".join(["path,label,split", *lines]).encode()})
    made = working.write.post("/v1/datasets?name=listed", content=archive).json()
    dataset = working.read.get(f"/v1/datasets/{made['id']}?wait=60").json()
    assert dataset["version"]["counts"] == {"train": {"ants": 3, "bees": 3}, "val": {"ants": 1, "bees": 1}}

    broken = folder_zip(images | {"labels.csv": b"picture,name\n"})
    made = working.write.post("/v1/datasets?name=broken", content=broken).json()
    dataset = working.read.get(f"/v1/datasets/{made['id']}?wait=60").json()
    assert (dataset["state"], dataset["failure"]["reason"]) == ("failed", "invalid_data")
    assert "labels.csv" in dataset["failure"]["detail"]
