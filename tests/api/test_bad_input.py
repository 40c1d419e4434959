"""Everything that can be wrong with what a caller sends: each is refused with its reason and leaves nothing behind."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.auth.schemas import Scope
from app.storage import FilesystemStore
from app.vision.training.result import FitResult
from tests.support.calls import problem
from tests.support.images import folder, folder_tar, folder_zip, gif, jpeg, photo, png
from tests.support.services import OpenService, Service, open_service

GOOD = folder_zip({"ants": 4, "bees": 4})
NOTHING = {"datasets": 0, "trainings": 0, "ingestions": 0, "models": 0}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def assert_nothing_is_left(api: Service, **expected: int) -> None:
    """No row, no staged file, and (where there is no dataset) no blob."""
    assert api.counts() == NOTHING | expected
    assert api.scratch() == []
    if not expected:
        assert isinstance(api.stage.store, FilesystemStore)
        assert list(api.stage.store.list()) == []


# Archives that are refused before the upload is answered.

GOOD_FILES = folder({"ants": 4, "bees": 4})
ARCHIVES: dict[str, tuple[bytes, int, str, str | None, str]] = {
    "an empty zip": (zipped({}), 422, "empty_archive", None, "Pack the folder"),
    "an empty tar": (tarred({}), 422, "empty_archive", None, "Pack the folder"),
    "no byte at all": (b"", 422, "empty_upload", "file", "curl -F file=@images.zip"),
    "text": (b"hello, this is no archive", 415, "not_an_archive", None, "zip, tar, tar.gz or tar.zst"),
    "a single image": (jpeg(photo(0, 0)), 415, "not_an_archive", None, "zip, tar, tar.gz or tar.zst"),
    "a zip cut short": (GOOD[: len(GOOD) // 2], 422, "damaged_archive", None, "again"),
    "a tar cut short": (folder_tar({"a": 4, "b": 4})[:9000], 422, "damaged_archive", None, "again"),
    "a single class": (folder_zip({"ants": 4}), 422, "single_class", "ants", "at least two"),
    "a class with one image": (folder_zip({"ants": 4, "bees": 1}), 422, "class_too_small", "bees", "Add images"),
    "no image": (zipped({"a/1.txt": b"x", "b/2.txt": b"y"}), 422, "no_images", "archive", "one folder for each class"),
    "images in no class": (
        zipped({f"{n}.jpg": jpeg(photo(0, n)) for n in range(4)}),
        422,
        "no_images",
        "archive",
        "one folder for each class",
    ),
    "a zip that climbs out": (
        zipped(GOOD_FILES | {"../../etc/cron.d/x.jpg": b"x"}),
        422,
        "unsafe_name",
        "../../etc/cron.d/x.jpg",
        "Pack the archive again",
    ),
    "a tar with an absolute name": (
        tarred({"/etc/x.jpg": b"x"} | GOOD_FILES),
        422,
        "unsafe_name",
        "/etc/x.jpg",
        "Pack the archive again",
    ),
    "a name twice": (
        zipped(GOOD_FILES | {"ants/0000.JPG": b"x"}),
        422,
        "duplicate_name",
        "ants/0000.JPG",
        "Rename",
    ),
}


@pytest.mark.parametrize("how", ["body", "form"])
@pytest.mark.parametrize("what", ARCHIVES)
def test_a_useless_archive_is_refused_at_once(api: Service, what: str, how: str) -> None:
    archive, status, code, field, remedy = ARCHIVES[what]
    sent: dict[str, Any] = {"content": archive} if how == "body" else {"files": {"file": ("pets.zip", archive)}}
    problem(api.write.post("/v1/datasets?name=pets", **sent), status, code, field, remedy)
    assert_nothing_is_left(api)
    # The name is free still.
    assert api.write.post("/v1/datasets?name=pets", content=GOOD).status_code == 202


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/zip"}, {"Content-Type": "text/plain"}])
def test_an_upload_is_told_by_its_content_and_not_by_its_type(api: Service, headers: dict[str, str]) -> None:
    assert api.write.post("/v1/datasets?name=pets", content=GOOD, headers=headers).status_code == 202


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("name=", "name"),
        ("name=.hidden", "name"),
        ("name=a/b", "name"),
        ("name=" + "x" * 101, "name"),
        ("val_fraction=0", "val_fraction"),
        ("val_fraction=1.5", "val_fraction"),
        ("val_fraction=nan", "val_fraction"),
        ("val_fraction=much", "val_fraction"),
        ("test_fraction=-0.1", "test_fraction"),
        ("seed=-1", "seed"),
        ("seed=1.5", "seed"),
        ("colour=red", "colour"),
    ],
)
def test_a_bad_option_of_an_upload_is_named(api: Service, query: str, field: str) -> None:
    body = problem(api.write.post(f"/v1/datasets?{query}", content=GOOD), 422, "invalid", field)
    assert field in body["detail"]
    assert_nothing_is_left(api)


def test_fractions_that_leave_nothing_to_train_on_are_refused(api: Service) -> None:
    response = api.write.post("/v1/datasets?name=pets&val_fraction=0.6&test_fraction=0.6", content=GOOD)
    problem(response, 422, "invalid", "test_fraction", remedy="keep their sum below 1")
    assert_nothing_is_left(api)


def test_a_name_that_is_taken_is_refused(api: Service) -> None:
    api.dataset("pets")
    problem(api.write.post("/v1/datasets?name=pets", content=GOOD), 409, "name_taken", "name", "Choose another")
    named = {"files": {"file": ("pets.zip", GOOD)}}
    problem(api.write.post("/v1/datasets", **named), 409, "name_taken", "name", "Choose another")
    assert_nothing_is_left(api, datasets=1, ingestions=1)


def test_an_unknown_form_field_is_named(api: Service) -> None:
    for form in ({"files": {"archive": ("a.zip", GOOD)}}, {"files": {"file": ("a.zip", GOOD)}, "data": {"name": "x"}}):
        (field,) = {"archive", "name"} & (form["files"] | form.get("data", {})).keys()
        problem(api.write.post("/v1/datasets", **form), 422, "invalid", field, "the part 'file'")  # type: ignore[arg-type]
    assert_nothing_is_left(api)


def test_two_files_in_one_upload_are_refused(api: Service) -> None:
    files = [("file", ("a.zip", GOOD)), ("file", ("b.zip", GOOD))]
    problem(api.write.post("/v1/datasets", files=files), 422, "invalid", "file", "one archive")
    assert_nothing_is_left(api)


@pytest.mark.parametrize("content", [b"no boundary anywhere", b"", b"--b\r\nContent-Disp"])
@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b"])
def test_a_broken_form_is_refused(api: Service, kind: str, content: bytes) -> None:
    response = api.write.post("/v1/datasets", content=content, headers={"Content-Type": kind})
    assert response.json()["code"] in ("malformed", "empty_upload")
    problem(response, response.status_code, response.json()["code"], remedy="curl -F file=@images.zip")
    assert_nothing_is_left(api)


def chunks(data: bytes, size: int = 65536) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("how", ["body", "chunked", "form"])
@pytest.mark.parametrize("size", [10_001, 2_000_000])
def test_an_upload_over_the_limit_is_refused(make_api: OpenService, how: str, size: int) -> None:
    api = make_api(max_upload_bytes=10_000)
    sent: dict[str, Any] = {
        "body": {"content": b"x" * size},
        "chunked": {"content": chunks(b"x" * size)},
        "form": {"files": {"file": ("a.zip", b"x" * size)}},
    }[how]
    response = api.write.post("/v1/datasets", **sent)
    problem(response, 413, "too_large", "file" if size < 2**20 else "body", remedy="GRAFT_MAX_UPLOAD_BYTES")
    assert_nothing_is_left(api)


def test_a_workspace_has_a_limit_of_its_own(make_api: OpenService) -> None:
    api = make_api(max_workspace_bytes=len(GOOD) + 1000)
    api.dataset("pets", GOOD)
    problem(api.write.post("/v1/datasets?name=more", content=GOOD), 413, "workspace_full", remedy="workspace")
    image = ("file", ("a.png", png(photo(0, 9, (200, 200)))))
    problem(api.write.post("/v1/datasets/pets/images?label=ants", files=[image]), 413, "workspace_full")
    assert api.counts() == NOTHING | {"datasets": 1, "ingestions": 1}
    other = api.caller(api.stage.workspace(), Scope.write)
    assert other.post("/v1/datasets?name=more", content=GOOD).status_code == 202
    api.write.delete("/v1/datasets/pets")
    assert api.write.post("/v1/datasets?name=more", content=GOOD).status_code == 202


# What only reading the images shows: a real worker.


def test_each_file_that_is_no_good_is_reported_and_the_others_are_kept(working: Service) -> None:
    picture = jpeg(photo(0, 90))
    files = folder({"ants": 6, "bees": 6}) | {
        "ants/note.jpg": b"this is text",
        "ants/cut.jpg": picture[: len(picture) // 2],
        "ants/empty.jpg": b"",
        "bees/moving.jpg": gif(photo(1, 91)),
        "bees/readme.md": b"# hello",
        "bees/page.jpg": b"<html>",
        "lost.jpg": jpeg(photo(1, 92)),
    }
    made = working.write.post("/v1/datasets?name=mixed", content=zipped(files))
    assert made.status_code == 202
    dataset = working.read.get(f"{made.headers['location']}?wait=60").json()
    assert dataset["state"] == "ready"
    assert dataset["failure"] is None
    assert dataset["progress"] == 1
    report = dataset["report"]
    assert (report["files"], report["accepted"], report["rejected_count"]) == (19, 13, 6)
    assert {one["file"]: one["code"] for one in report["rejected"]} == {
        "ants/note.jpg": "not_an_image",
        "ants/cut.jpg": "truncated_image",
        "ants/empty.jpg": "empty_file",
        "bees/readme.md": "not_an_image",
        "bees/page.jpg": "not_an_image",
        "lost.jpg": "no_class_folder",
    }
    assert all(one["reason"] and one["remedy"] for one in report["rejected"])
    (noted,) = report["noted"]
    assert (noted["file"], noted["code"]) == ("bees/moving.jpg", "format_differs")
    assert "GIF" in noted["reason"]
    assert sum(sum(classes.values()) for classes in dataset["version"]["counts"].values()) == 13


def test_a_dataset_of_bad_images_alone_fails_with_the_reason(working: Service) -> None:
    files = {f"{label}/{n}.jpg": b"no image" for label in ("ants", "bees") for n in range(3)}
    made = working.write.post("/v1/datasets?name=bad", content=zipped(files)).json()
    dataset = working.read.get(f"/v1/datasets/{made['id']}?wait=60").json()
    assert dataset["state"] == "failed"
    assert dataset["failure"]["reason"] == "invalid_data"
    assert "No usable image" in dataset["failure"]["detail"]
    assert "report" in dataset["failure"]["hint"]
    assert dataset["version"] is None
    assert [one["code"] for one in dataset["report"]["rejected"]] == ["not_an_image"] * 6
    job = working.read.get(f"/v1/jobs/{made['job_id']}").json()
    assert (job["state"], job["failure"]) == ("failed", {**dataset["failure"], "checkpoint": None})
    assert job["result"] is None

    refused = working.write.post("/v1/jobs", json={"dataset": "bad"})
    problem(refused, 409, "dataset_not_ready", remedy="Upload it again")
    again = working.write.post("/v1/datasets?name=bad", content=GOOD)
    assert again.status_code == 202  # the name is free again
    assert working.read.get(f"{again.headers['location']}?wait=60").json()["state"] == "ready"


# Trainings that are refused.

JOBS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "an unknown backbone": ({"backbone": "resnet18-tiny46"}, "unknown_backbone", "backbone", "'resnet18-tiny64'"),
    "weights that cannot be had": ({"backbone": "resnet18"}, "weights_unavailable", "backbone", "GRAFT_WEIGHTS_DIR"),
    "a negative learning rate": ({"learning_rate": -0.1}, "invalid", "learning_rate", "greater than 0"),
    "no learning rate": ({"learning_rate": "fast"}, "invalid", "learning_rate", "valid number"),
    "an unknown field": ({"lerning_rate": 0.1}, "invalid", "lerning_rate", "/docs"),
    "an unknown field of the head": ({"head": {"units": 3}}, "invalid", "head.units", "/docs"),
    "a head that is no head": ({"head": 3}, "invalid", "head", "not 3"),
    "a hidden layer of nothing": ({"head": {"hidden": [0]}}, "invalid", "head.hidden.0", "greater than"),
    "too many hidden layers": ({"head": {"hidden": [8] * 5}}, "invalid", "head.hidden", "at most 4"),
    "dropout of all": ({"head": {"dropout": 1}}, "invalid", "head.dropout", "0.95"),
    "dropout of nearly all": ({"head": {"dropout": 0.99}}, "invalid", "head.dropout", "0.95"),
    "no epoch": ({"epochs": 0}, "invalid", "epochs", "greater than or equal to 1"),
    "half an epoch": ({"epochs": 1.5}, "invalid", "epochs", "integer"),
    "too large a batch": ({"batch_size": 60_000}, "invalid", "batch_size", "4096"),
    "an unknown optimizer": ({"optimizer": "lion"}, "invalid", "optimizer", "'adamw'"),
    "an unknown schedule": ({"schedule": "linear"}, "invalid", "schedule", "'cosine'"),
    "an unknown augmentation": ({"augmentation": "wild"}, "invalid", "augmentation", "'strong'"),
    "an unknown part to train": ({"train": "everything"}, "invalid", "train", '"head", "all"'),
    "no part to train": ({"train": None}, "invalid", "train", '"head", "all"'),
    "no stage": ({"train": {"last_stages": 0}}, "invalid", "train", "whole number"),
    "more stages than there are": ({"train": {"last_stages": 6}}, "invalid", "last_stages", "1 to 5"),
    "too small an input": ({"input_size": 8}, "invalid", "input_size", "32"),
    "a negative seed": ({"seed": -1}, "invalid", "seed", "greater than or equal to 0"),
    "no name for the model": ({"model_name": ""}, "invalid", "model_name", "at least 1"),
    "an unknown dataset": ({"dataset": "cars"}, "unknown_dataset", "dataset", "GET /v1/datasets"),
    "a dataset that is a number": ({"dataset": 7}, "invalid", "dataset", "valid string"),
}


@pytest.fixture(scope="module")
def jobless(shared: Service) -> Service:
    """A workspace with a dataset; no test that takes it makes a job."""
    shared.dataset("pets")
    return shared


@pytest.mark.parametrize("what", JOBS)
def test_a_training_that_cannot_be_is_refused(jobless: Service, what: str) -> None:
    fields, code, field, remedy = JOBS[what]
    problem(jobless.write.post("/v1/jobs", json={"dataset": "pets", **fields}), 422, code, field, remedy)
    assert jobless.counts() == NOTHING | {"datasets": 1, "ingestions": 1}


def test_weights_that_cannot_be_had_are_named_with_the_file(jobless: Service) -> None:
    response = jobless.write.post("/v1/jobs", json={"dataset": "pets", "backbone": "resnet18"})
    body = problem(response, 422, "weights_unavailable", "backbone", "GRAFT_WEIGHTS_DIR")
    assert "resnet18-f37072fd.pth" in body["detail"]


def test_every_bad_field_is_named_at_once(jobless: Service) -> None:
    response = jobless.write.post("/v1/jobs", json={"epochs": 0, "seed": "x", "optimiser": "sgd"})
    body = problem(response, 422, "invalid")
    assert {one["field"] for one in body["errors"]} == {"dataset", "epochs", "seed", "optimiser"}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/keys"])
@pytest.mark.parametrize("content", [b"{", b"", b'{"dataset": "pets"', b"dataset=pets", b"\xff\xfe", b"1" * 5000])
def test_a_body_that_is_not_json_is_refused(jobless: Service, path: str, content: bytes) -> None:
    response = jobless.admin.post(path, content=content, headers={"Content-Type": "application/json"})
    if content:
        problem(response, 400, "malformed", "body", remedy="JSON")
    else:
        problem(response, 422, "invalid", "body", remedy="is required")


@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"pets"'])
def test_json_that_is_no_object_is_refused(jobless: Service, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    problem(jobless.write.post("/v1/jobs", content=content, headers=headers), 422, "invalid", "body")


@pytest.mark.parametrize("how", ["whole", "chunked"])
def test_a_json_body_over_the_limit_is_refused(jobless: Service, how: str) -> None:
    content = b'{"dataset": "' + b"x" * 2**20 + b'"}'
    sent = content if how == "whole" else chunks(content)
    headers = {"Content-Type": "application/json"}
    response = jobless.write.post("/v1/jobs", content=sent, headers=headers)
    problem(response, 413, "too_large", "body", remedy="GRAFT_MAX_JSON_BYTES")


@pytest.mark.parametrize(
    "fields",
    [{"dataset": "\x00"}, {"model_name": "a\x00b"}, {"model_name": "\ud800"}, {"\ud800": 1}],
)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_text_that_no_database_keeps_is_refused(
    request: pytest.FixtureRequest, make_api: OpenService, kind: str, fields: dict[str, Any]
) -> None:
    jobless = make_api(database_url=request.getfixturevalue(f"{kind}_url"))
    jobless.dataset("pets")
    content = json.dumps({"dataset": "pets"} | fields)
    response = jobless.write.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.json()["code"] in ("invalid", "unknown_dataset", "bad_value")
    assert jobless.counts()["trainings"] == 0


@pytest.mark.parametrize("path", ["/v1/datasets?name=%00", "/v1/models?name=%00", "/v1/datasets/%00"])
def test_a_name_that_no_database_keeps_is_not_found(make_api: OpenService, postgresql_url: str, path: str) -> None:
    response = make_api(database_url=postgresql_url).read.get(path)
    assert response.status_code in (200, 404, 422), response.text


def test_a_dataset_that_is_still_read_cannot_be_trained_on(api: Service) -> None:
    api.write.post("/v1/datasets?name=pets", content=GOOD)
    response = api.write.post("/v1/jobs", json={"dataset": "pets"})
    problem(response, 409, "dataset_not_ready", remedy="wait")
    assert int(response.headers["retry-after"]) > 0
    assert api.counts()["trainings"] == 0


LISTS = ["/v1/datasets", "/v1/jobs", "/v1/models", "/v1/keys"]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["x", "", "!!!!", "AAAA", "é", "A" * 1000])
def test_a_bad_cursor_is_refused(shared: Service, path: str, cursor: str) -> None:
    problem(shared.admin.get(path, params={"cursor": cursor}), 422, "bad_cursor", "cursor", "next_cursor")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["0", "-1", "201", "many", "1.5"])
def test_a_bad_limit_is_refused(shared: Service, path: str, limit: str) -> None:
    problem(shared.admin.get(path, params={"limit": limit}), 422, "invalid", "limit", limit)


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "long"])
@pytest.mark.parametrize("path", ["/v1/datasets/pets", "/v1/jobs/019a0000-0000-7000-8000-000000000000"])
def test_a_bad_wait_is_refused(shared: Service, path: str, wait: str) -> None:
    problem(shared.read.get(path, params={"wait": wait}), 422, "invalid", "wait")


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", "/v1/jobs/7", "job_id"),
        ("POST", "/v1/jobs/7:cancel", "job_id"),
        ("GET", "/v1/jobs/7/events", "job_id"),
        ("GET", "/v1/jobs/7/metrics", "job_id"),
        ("POST", "/v1/models/7:pin", "model_id"),
        ("DELETE", "/v1/models/pets/aliases/-", "alias"),
        ("DELETE", "/v1/models/7", "model_id"),
        ("DELETE", "/v1/keys/7", "key_id"),
        ("GET", "/v1/jobs?state=done", "state"),
        ("GET", "/v1/jobs?kind=test", "kind"),
        ("GET", "/v1/jobs?dataset_id=pets", "dataset_id"),
    ],
)
def test_a_bad_id_or_filter_is_named(shared: Service, method: str, path: str, field: str) -> None:
    problem(shared.admin(method, path), 422, "invalid", field)


def test_what_is_not_there_is_a_404_and_what_cannot_be_done_a_405(shared: Service) -> None:
    problem(shared.admin.get("/v1/nowhere"), 404, "no_such_route", remedy="GET /docs")
    response = shared.admin("PUT", "/v1/jobs")
    problem(response, 405, "method_not_allowed", remedy="GET")
    assert set(response.headers["allow"].split(", ")) <= {"GET", "POST"}


# Images that cannot be classified.

PICTURE = jpeg(photo(0, 50))
Send = Callable[[Service, str], Any]


def raw(content: bytes, kind: str = "image/jpeg", query: str = "") -> Send:
    headers = {"Content-Type": kind} if kind else {}
    return lambda api, model: api.predict.post(f"/v1/models/{model}/predict{query}", content=content, headers=headers)


def form(*files: tuple[str, bytes], part: str = "file", query: str = "") -> Send:
    sent = [(part, (name, content, "image/jpeg")) for name, content in files]
    return lambda api, model: api.predict.post(f"/v1/models/{model}/predict{query}", files=sent)


PREDICTIONS: dict[str, tuple[Send, int, str, str | None, str]] = {
    "text as text": (raw(b"hello", "text/plain"), 415, "unsupported_media_type", "Content-Type", "--data-binary"),
    "json without images": (raw(b"{}", "application/json"), 422, "invalid", "images", "is required"),
    "json with no image": (raw(b'{"images": []}', "application/json"), 422, "invalid", "images", "at least 1"),
    "broken json": (raw(b"{", "application/json"), 400, "malformed", "body", "JSON"),
    "no base64": (
        raw(b'{"images": [{"base64": "?"}]}', "application/json"),
        *(422, "invalid", "images.0.base64", "base64 -w0"),
    ),
    "base64 that is a list": (
        raw(b'{"images": [{"base64": ["a"]}]}', "application/json"),
        *(422, "invalid", "images.0.base64", "this is a list and no text"),
    ),
    "neither bytes nor an id": (
        raw(b'{"images": [{"name": "a.jpg"}]}', "application/json"),
        *(422, "invalid", "images.0", "either base64 or id"),
    ),
    "an id that is none": (
        raw(b'{"images": [{"id": "7"}]}', "application/json"),
        *(422, "unknown_image", "7", "SHA-256"),
    ),
    "too many images": (
        raw(b'{"images": [{"id": "7"}, {"id": "7"}, {"id": "7"}, {"id": "7"}]}', "application/json"),
        *(422, "too_many_files", "images", "3"),
    ),
    "an unknown option": (raw(PICTURE, query="?topk=3"), 422, "invalid", "topk", "no such field"),
    "a class that it does not know": (raw(PICTURE, query="?classes=cats"), 422, "unknown_class", "classes", "'ants'"),
    "a threshold past certainty": (raw(PICTURE, query="?threshold=1.5"), 422, "invalid", "threshold", "1.5"),
    "text as an image": (raw(b"hello"), 422, "not_an_image", "body", "Convert it"),
    "text in a form": (form(("a.jpg", b"hello")), 422, "not_an_image", "a.jpg", "Convert it"),
    "no body": (raw(b""), 422, "no_image", "file", "--data-binary"),
    "an empty file in a form": (form(("a.jpg", b"")), 422, "empty_file", "a.jpg", "Send it again"),
    "half an image": (raw(PICTURE[: len(PICTURE) // 2]), 422, "truncated_image", "body", "whole file"),
    "one pixel": (raw(png(photo(0, 0, (1, 1)))), 422, "image_too_small", "body", "full size"),
    "too many files": (form(*[(f"{n}.jpg", PICTURE) for n in range(4)]), 422, "too_many_files", "file", "3"),
    "another part": (form(("a.jpg", PICTURE), part="image"), 422, "invalid", "image", "named 'file'"),
    "no class": (raw(PICTURE, query="?top_k=0"), 422, "invalid", "top_k", "0"),
    "a class that is no number": (raw(PICTURE, query="?top_k=best"), 422, "invalid", "top_k", "best"),
    "a form without a boundary": (raw(b"x", "multipart/form-data"), 400, "malformed", "body", "-F file=@"),
    "a broken form": (raw(b"x", "multipart/form-data; boundary=b"), 400, "malformed", "body", "-F file=@"),
    "too many bytes": (raw(b"x" * 2**20), 413, "too_large", "body", "GRAFT_MAX_PREDICT_BYTES"),
}


@pytest.fixture(scope="module")
def classifying(trained: FitResult, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service with small limits on predictions, and its model's id."""
    import shutil

    from app.core.settings import Settings

    home = tmp_path_factory.mktemp("classifying")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    settings = Settings(home=home, max_predict_files=3, max_predict_bytes=500_000, engines="torch", _env_file=None)  # type: ignore[call-arg]
    with open_service(settings) as api:
        yield api, api.model(trained)


@pytest.mark.parametrize("what", PREDICTIONS)
def test_what_cannot_be_classified_is_refused(classifying: tuple[Service, str], what: str) -> None:
    send, status, code, field, remedy = PREDICTIONS[what]
    api, model = classifying
    problem(send(api, model), status, code, field, remedy)
    assert api.scratch() == []


def test_an_unreadable_image_among_others_spoils_no_other(classifying: tuple[Service, str]) -> None:
    api, model = classifying
    files = [("file", ("a.jpg", PICTURE)), ("file", ("b.jpg", b"text")), ("file", ("c.jpg", PICTURE))]
    response = api.predict.post(f"/v1/models/{model}/predict", files=files)
    assert response.status_code == 207
    first, bad, last = response.json()["items"]
    assert (bad["file"], bad["status"], bad["predictions"]) == ("b.jpg", "error", [])
    assert bad["error"]["code"] == "not_an_image"
    assert "Convert it" in bad["error"]["detail"]
    alone = api.predict.post(f"/v1/models/{model}/predict", files=files[:1]).json()["items"][0]
    for item, name in ((first, "a.jpg"), (last, "c.jpg")):
        assert (item["file"], item["status"], item["error"]) == (name, "ok", None)
        # Sums in another batch may differ in their last bits.
        assert probabilities(item) == pytest.approx(probabilities(alone), abs=1e-5)


def probabilities(item: dict[str, Any]) -> dict[str, float]:
    return {one["label"]: one["probability"] for one in item["predictions"]}


def test_only_unreadable_images_are_each_answered(classifying: tuple[Service, str]) -> None:
    api, model = classifying
    files = [("file", ("a.jpg", b"text")), ("file", ("b.jpg", b""))]
    response = api.predict.post(f"/v1/models/{model}/predict", files=files)
    assert response.status_code == 207
    assert [item["error"]["code"] for item in response.json()["items"]] == ["not_an_image", "empty_file"]


def test_a_deleted_model_answers_no_more(api: Service, model_id: str) -> None:
    send = raw(PICTURE)
    assert send(api, model_id).status_code == 200
    assert api.write.delete(f"/v1/models/{model_id}").status_code == 204
    problem(send(api, model_id), 404, "not_found", remedy="GET /v1/models")
