"""Resumable uploads over HTTP: begun, sent in pieces, gone on with, ended; refused where the protocol says so."""

import base64
import hashlib
import threading
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.api.uploads.chunks import held
from app.auth.schemas import Scope
from app.core.ids import new_id
from app.datasets import uploads
from app.datasets.orm import Dataset, ResumableUpload
from app.datasets.service import quota
from tests.support.calls import problem
from tests.support.images import folder_zip
from tests.support.resumable import ARCHIVE, SHA256, THIRD, TUS, begin, offset, send
from tests.support.services import OpenService, Service
from worker.supervision.housekeeping import collect_garbage


def files(api: Service) -> list[str]:
    folder = api.stage.settings.uploads
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def rows(api: Service) -> int:
    with api.stage.database.reading() as session:
        return len(session.scalars(select(ResumableUpload)).all())


def nothing_is_left(api: Service) -> bool:
    return files(api) == [] and rows(api) == 0


def test_pieces_become_the_dataset_that_a_plain_upload_is(api: Service) -> None:
    made = begin(api.write, name="pets", filename="My pets.zip", val_fraction="0.4", seed="3", sha256=SHA256)
    assert made.status_code == 201
    assert made.headers["tus-resumable"] == "1.0.0"
    address = made.headers["location"]
    assert made.json()["options"] == {"name": "pets", "val_fraction": 0.4, "test_fraction": 0.0, "seed": 3}
    for start in range(0, len(ARCHIVE), THIRD):
        assert offset(api.read, address) == start
        sent = send(api.write, address, start, ARCHIVE[start : start + THIRD])
        assert sent.status_code == 204, sent.text
        assert int(sent.headers["upload-offset"]) == min(start + THIRD, len(ARCHIVE))
    assert offset(api.read, address) == len(ARCHIVE)
    plain = api.write.post("/v1/datasets?name=plain&val_fraction=0.4&seed=3", content=ARCHIVE).json()
    resumed = api.read.get(sent.headers["location"]).json()
    assert resumed["upload"] == {**plain["upload"], "filename": "My pets.zip"}
    assert (resumed["name"], resumed["state"]) == ("pets", "processing")
    assert api.read.get(address).json()["dataset_id"] == resumed["id"]
    specs = [api.read.get(f"/v1/jobs/{one['job_id']}").json()["spec"] for one in (plain, resumed)]
    assert specs[0] == specs[1]
    assert files(api) == []
    # A sender who missed the last answer learns of it; bytes are not taken twice.
    assert api.read("HEAD", address, headers=TUS).headers["location"] == sent.headers["location"]
    problem(send(api.write, address, len(ARCHIVE), b"x"), 409, "wrong_offset", "Upload-Offset")
    assert api.counts()["datasets"] == 2


def test_the_server_says_what_it_can_do(api: Service) -> None:
    answer = api.write("OPTIONS", "/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) == {"creation", "checksum", "termination", "expiration"}
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"
    assert answer.headers["tus-max-size"] == str(api.stage.settings.max_upload_bytes)


@pytest.mark.parametrize("version", [None, "0.2.2", "2.0.0"])
def test_another_version_of_the_protocol_is_refused_and_changes_nothing(api: Service, version: str | None) -> None:
    address = begin(api.write).headers["location"]
    spoken = {"Tus-Resumable": version} if version else {}
    length = {"Upload-Length": "5"}
    piece = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    for answer in (
        api.write.post("/v1/uploads", headers=spoken | length),
        api.write.patch(address, headers=spoken | piece, content=ARCHIVE),
        api.write.delete(address, headers=spoken),
    ):
        problem(answer, 412, "tus_version", "Tus-Resumable", remedy="1.0.0")
        assert answer.headers["tus-version"] == "1.0.0"
    assert api.write("HEAD", address, headers=spoken).status_code == 412
    assert (offset(api.read, address), rows(api)) == (0, 1)


def test_a_wrong_offset_is_refused_and_takes_nothing(api: Service) -> None:
    address = begin(api.write).headers["location"]
    assert send(api.write, address, 0, ARCHIVE[:THIRD]).status_code == 204
    for wrong in (0, THIRD - 1, THIRD + 1, 2**40):
        problem(send(api.write, address, wrong, b"x"), 409, "wrong_offset", "Upload-Offset", remedy=str(THIRD))
    assert offset(api.read, address) == THIRD
    assert send(api.write, address, THIRD, ARCHIVE[THIRD:]).status_code == 204


def test_a_piece_is_held_against_its_checksum(api: Service) -> None:
    address = begin(api.write, sha256=SHA256).headers["location"]
    first = base64.b64encode(hashlib.sha256(ARCHIVE[:THIRD]).digest()).decode()
    damaged = bytes([ARCHIVE[0] ^ 1]) + ARCHIVE[1:THIRD]
    problem(send(api.write, address, 0, damaged, Upload_Checksum=f"sha256 {first}"), 460, "checksum_mismatch")
    assert offset(api.read, address) == 0
    for bad in (f"md5 {first}", f"sha1 {first}", "sha256 xyz", "sha256", f"sha256 {first}x"):
        problem(send(api.write, address, 0, damaged, Upload_Checksum=bad), 422, "bad_checksum", "Upload-Checksum")
    assert send(api.write, address, 0, ARCHIVE[:THIRD], Upload_Checksum=f"sha256 {first}").status_code == 204
    assert send(api.write, address, THIRD, ARCHIVE[THIRD:]).headers["location"].startswith("/v1/datasets/")


def test_a_whole_with_another_hash_is_refused_and_removed(api: Service) -> None:
    address = begin(api.write, name="pets", sha256=hashlib.sha256(b"other").hexdigest()).headers["location"]
    refused = problem(send(api.write, address, 0, ARCHIVE), 422, "sha256_mismatch", "Upload-Metadata.sha256")
    assert SHA256 in refused["detail"]
    assert nothing_is_left(api)
    assert api.counts()["datasets"] == 0
    assert api.read("HEAD", address, headers=TUS).status_code == 404


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"x" * 500, 415, "not_an_archive"),
        (folder_zip({"ants": 5}), 422, "single_class"),
        (ARCHIVE[:-30], 422, "damaged_archive"),
    ],
)
def test_what_no_dataset_can_be_made_of_is_removed(api: Service, data: bytes, status: int, code: str) -> None:
    address = begin(api.write, len(data), name="pets").headers["location"]
    problem(send(api.write, address, 0, data), status, code)
    assert nothing_is_left(api)
    assert api.write.post("/v1/datasets?name=pets", content=ARCHIVE).status_code == 202


def test_an_upload_whose_name_was_taken_meanwhile_can_still_be_finished(api: Service) -> None:
    address = begin(api.write, name="pets").headers["location"]
    dataset = api.dataset("pets")
    problem(begin(api.write, name="pets"), 409, "name_taken", "name")
    problem(send(api.write, address, 0, ARCHIVE), 409, "name_taken", "name")
    assert offset(api.read, address) == len(ARCHIVE) - 1  # the last byte counts when the dataset exists
    assert api.write.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert send(api.write, address, len(ARCHIVE) - 1, ARCHIVE[-1:]).status_code == 204
    api.stage.read_uploads()
    assert api.read.get("/v1/datasets/pets").json()["state"] == "ready"


def test_more_bytes_than_declared_are_refused_and_none_of_them_kept(api: Service) -> None:
    address = begin(api.write, THIRD).headers["location"]
    problem(send(api.write, address, 0, ARCHIVE), 413, "longer_than_declared", "Upload-Length")
    assert offset(api.read, address) == 0


def test_limits_count_before_a_byte_comes(make_api: OpenService) -> None:
    api = make_api(max_upload_bytes=100_000, max_workspace_bytes=150_000)
    problem(begin(api.write, 100_001), 413, "too_large", remedy="GRAFT_MAX_UPLOAD_BYTES")
    address = begin(api.write, 90_000).headers["location"]
    # What is under way counts whole, so that several together keep within the limit too.
    problem(begin(api.write, 90_000), 413, "workspace_full", remedy="GRAFT_MAX_WORKSPACE_BYTES")
    problem(api.write.post("/v1/datasets", content=bytes(61_000)), 413, "workspace_full")
    pieces = (bytes(1000) for _ in range(61))  # of which nobody says how many there are
    problem(api.write.post("/v1/datasets", content=pieces), 413, "workspace_full")
    assert api.scratch() == []
    assert begin(api.caller(api.stage.workspace(), Scope.write), 90_000).status_code == 201
    assert api.write.delete(address, headers=TUS).status_code == 204
    assert begin(api.write, 90_000).status_code == 201
    with api.stage.database.reading() as session:
        assert quota(session, api.workspace.id, 1).held == 90_000


@pytest.mark.parametrize("length", ["0", "-1", "x", "1.5", str(2**70), None])
def test_a_length_is_asked_for(api: Service, length: str | None) -> None:
    headers = TUS | ({"Upload-Length": length} if length is not None else {})
    problem(api.write.post("/v1/uploads", headers=headers), 422, "invalid", "Upload-Length")


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("name cGV0cw==,seed eA==", "Upload-Metadata.seed"),
        ("name !!", "Upload-Metadata.name"),
        ("name", "Upload-Metadata.name"),
        ("name Li4vcGV0cw==", "Upload-Metadata.name"),  # ../pets
        ("name cGV0cw==,name cGV0cw==", "Upload-Metadata.name"),
        ("nmae cGV0cw==", "Upload-Metadata.nmae"),
        ("filename /w==", "Upload-Metadata.filename"),
        ("filename AA==", "Upload-Metadata.filename"),
        ("sha256 eA==", "Upload-Metadata.sha256"),
    ],
)
def test_metadata_that_means_nothing_is_refused_by_its_key(api: Service, header: str, field: str) -> None:
    answer = api.write.post("/v1/uploads", headers={**TUS, "Upload-Length": "5", "Upload-Metadata": header})
    problem(answer, 422, "invalid", field)
    assert rows(api) == 0


def test_a_browsers_client_may_send_what_it_always_sends(api: Service) -> None:
    made = begin(api.write, name="pets.zip", filetype="application/zip", type="application/zip", relativePath="null")
    assert made.status_code == 201


def test_a_method_may_stand_in_a_header(api: Service) -> None:
    address = begin(api.write).headers["location"]
    headers = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    sent = api.write.post(address, headers=headers | {"X-HTTP-Method-Override": "PATCH"}, content=ARCHIVE)
    assert sent.status_code == 204
    problem(api.read.post(address, headers=headers | {"X-HTTP-Method-Override": "DELETE"}), 403, "missing_scope")


def test_bytes_of_another_kind_are_refused(api: Service) -> None:
    address = begin(api.write).headers["location"]
    answer = send(api.write, address, 0, ARCHIVE, Content_Type="application/zip")
    problem(answer, 415, "unsupported_media_type", "Content-Type", remedy="application/offset+octet-stream")
    assert offset(api.read, address) == 0


def test_an_ended_upload_leaves_nothing(api: Service) -> None:
    address = begin(api.write, name="pets").headers["location"]
    send(api.write, address, 0, ARCHIVE[:THIRD])
    assert len(files(api)) == 1
    assert api.write.delete(address, headers=TUS).status_code == 204
    assert nothing_is_left(api)
    problem(send(api.write, address, THIRD, ARCHIVE[THIRD:]), 404, "not_found", remedy="POST /v1/uploads")
    problem(api.write.delete(address, headers=TUS), 404, "not_found")
    assert nothing_is_left(api)


def test_one_sender_at_a_time(api: Service) -> None:
    address = begin(api.write).headers["location"]
    upload_id = api.read.get(address).json()["id"]
    with held(api.stage.settings.uploads, upload_id, 30.0):
        problem(send(api.write, address, 0, ARCHIVE), 423, "upload_locked", remedy="HEAD")
    assert send(api.write, address, 0, ARCHIVE).status_code == 204


def test_senders_at_once_make_one_dataset(api: Service) -> None:
    address = begin(api.write, name="pets").headers["location"]
    statuses: list[int] = []

    def race() -> None:
        statuses.append(send(api.write, address, 0, ARCHIVE).status_code)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 409, 423}
    assert api.counts() == {"datasets": 1, "trainings": 0, "ingestions": 1, "models": 0}


def test_another_workspace_does_not_find_it(api: Service) -> None:
    address = begin(api.write).headers["location"]
    send(api.write, address, 0, ARCHIVE[:THIRD])
    stranger = api.caller(api.stage.workspace(), Scope.admin)
    problem(stranger.get(address), 404, "not_found")
    assert stranger("HEAD", address, headers=TUS).status_code == 404
    problem(send(stranger, address, THIRD, ARCHIVE[THIRD:]), 404, "not_found")
    problem(stranger.delete(address, headers=TUS), 404, "not_found")
    assert api.nobody("HEAD", address, headers=TUS).status_code == 401
    assert offset(api.read, address) == THIRD


def expire(api: Service) -> None:
    with api.stage.database.writing() as session:
        session.execute(update(ResumableUpload).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))


def test_uploads_expire_and_are_removed(api: Service) -> None:
    made = begin(api.write, name="pets")
    address, expires = made.headers["location"], parsedate_to_datetime(made.headers["upload-expires"])
    left = (expires - datetime.now(UTC)).total_seconds()
    assert 0.9 * api.stage.settings.upload_expiry_seconds < left <= api.stage.settings.upload_expiry_seconds + 60
    send(api.write, address, 0, ARCHIVE[:THIRD])
    (api.stage.settings.uploads / str(new_id())).write_bytes(b"of a row that is gone")
    collect_garbage(api.stage.database, api.stage.store, api.stage.settings)
    assert (len(files(api)), offset(api.read, address)) == (1, THIRD)
    expire(api)
    problem(send(api.write, address, THIRD, ARCHIVE[THIRD:]), 404, "not_found")
    collect_garbage(api.stage.database, api.stage.store, api.stage.settings)
    assert nothing_is_left(api)


def test_bytes_put_the_end_off(api: Service) -> None:
    address = begin(api.write).headers["location"]
    soon = datetime.now(UTC) + timedelta(seconds=60)
    with api.stage.database.writing() as session:
        session.execute(update(ResumableUpload).values(expires_at=soon))
    sent = send(api.write, address, 0, ARCHIVE[:THIRD])
    assert parsedate_to_datetime(sent.headers["upload-expires"]) > soon + timedelta(hours=1)


def test_a_repeated_call_begins_one_upload(api: Service) -> None:
    key = {"Idempotency-Key": "once"}
    first, again = (begin(api.write, headers=key, name="pets") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.headers["location"] == again.headers["location"]
    assert rows(api) == 1
    problem(begin(api.write, headers=key, name="cars"), 422, "idempotency_key_reused", "Idempotency-Key")


def test_what_a_killed_process_had_written_but_not_counted_is_written_over(api: Service) -> None:
    address = begin(api.write, sha256=SHA256).headers["location"]
    send(api.write, address, 0, ARCHIVE[:THIRD])
    path = api.stage.settings.uploads / files(api)[0]
    with path.open("ab") as file:
        file.write(b"counted by nobody")
    assert send(api.write, address, THIRD, ARCHIVE[THIRD : 2 * THIRD]).status_code == 204
    assert send(api.write, address, 2 * THIRD, ARCHIVE[2 * THIRD :]).status_code == 204


def test_an_upload_that_is_ended_while_its_last_piece_comes_makes_no_dataset(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = begin(api.write, name="pets").headers["location"]
    real = uploads.advance

    def ended_first(*given: Any) -> Any:
        assert api.write.delete(address, headers=TUS).status_code == 204
        return real(*given)

    monkeypatch.setattr(uploads, "advance", ended_first)
    problem(send(api.write, address, 0, ARCHIVE), 404, "not_found")
    assert nothing_is_left(api)
    with api.stage.database.reading() as session:
        assert session.scalars(select(Dataset)).all() == []


def test_the_disks_floor_counts_before_and_while_bytes_come(
    make_api: OpenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api()
    address = begin(api.write, name="pets").headers["location"]
    free = _free(monkeypatch, api.stage.settings.min_free_bytes + len(ARCHIVE) - 1)
    remedy = "GRAFT_MIN_FREE_BYTES"
    for answer in (
        begin(api.write),
        send(api.write, address, 0, ARCHIVE),
        api.write.post("/v1/datasets", content=ARCHIVE),
        api.write.put("/v1/datasets/pets.zip", content=ARCHIVE),
    ):
        problem(answer, 507, "storage_full", remedy=remedy)
    pieces = (ARCHIVE[start : start + 1000] for start in range(0, len(ARCHIVE), 1000))
    free[0] = api.stage.settings.min_free_bytes - 1
    problem(api.write.post("/v1/datasets", content=pieces), 507, "storage_full", remedy=remedy)  # of unknown length
    assert (api.scratch(), api.counts()["datasets"], offset(api.read, address)) == ([], 0, 0)
    free[0] = api.stage.settings.min_free_bytes + len(ARCHIVE)
    assert send(api.write, address, 0, ARCHIVE).status_code == 204


def _free(monkeypatch: pytest.MonkeyPatch, first: int) -> list[int]:
    """The free bytes that every disk says it has."""
    import shutil

    free = [first]
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free[0]))
    return free
