"""Datasets that are named instead of sent, read by real children; readings that are cancelled or killed half-way."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy import select

from app.datasets import service as datasets
from app.datasets.orm import Dataset, DatasetImage
from app.datasets.schemas import SplitOptions
from app.datasets.sources.references import ImportRequest, check_import
from app.datasets.states import DatasetState
from app.ingestions import service as ingestions
from app.ingestions.type import INGEST
from app.jobs import service as jobs
from app.jobs.orm import Job
from app.jobs.states import JobState
from tests.support.child_work import doing, ingest_and_hold, kinds_with
from tests.support.factories import SilentDoorbell
from tests.support.images import folder, folder_zip, jpeg, photo
from tests.support.services import Service
from tests.support.tls import body, certificate, tls_server
from tests.support.waiting import wait_for

FILES = folder({"ants": 4, "bees": 4}, {"train": 3, "val": 1}, None, (64, 64))


def import_(site: Service, name: str, max_bytes: int = 10**9, **named: Any) -> UUID:
    """What `POST /v1/datasets:import` does; gives the job."""
    kind, document, place = check_import(ImportRequest(name=name, **named), site.stage.settings)
    upload = datasets.Upload(site.stage.store.put_bytes(document), kind, place)
    with site.stage.database.writing() as session:
        dataset = datasets.create(session, site.workspace.id, name, upload)
        return ingestions.submit(session, SilentDoorbell(), dataset, SplitOptions(), 2, max_bytes=max_bytes).id


def dataset(site: Service, name: str) -> Dataset:
    with site.stage.database.reading() as session:
        return datasets.get(session, site.workspace.id, name)


def version(site: Service, name: str) -> str:
    with site.stage.database.reading() as session:
        found = datasets.get(session, site.workspace.id, name)
        return datasets.latest_versions(session, [found.id])[found.id].manifest_sha256


def allow(site: Service, monkeypatch: pytest.MonkeyPatch, **given: str) -> None:
    """For this process and for the children."""
    for name, value in given.items():
        monkeypatch.setenv(f"GRAFT_{name.upper()}", value)
    site.stage = type(site.stage)(site.stage.settings.model_copy(update=given), site.stage.database, site.stage.store)


def write(root: Path) -> Path:
    for name, data in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def plain(site: Service) -> str:
    """The version that an upload of the same files has."""
    split = {"train": 3, "val": 1}
    site.stage.dataset(site.workspace, "plain", folder_zip({"ants": 4, "bees": 4}, split))
    return version(site, "plain")


def test_a_folder_becomes_the_dataset_that_its_archive_does(
    site: Service, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "images" / "pets")
    secret = tmp_path / "secret"
    write(secret)
    (root / "train" / "ants" / "link.jpg").symlink_to(next(secret.rglob("*.jpg")))
    (root / "train" / "bees" / "out").symlink_to(secret)
    os.mkfifo(root / "train" / "ants" / "pipe.jpg")
    allow(site, monkeypatch, import_folders=str(tmp_path / "images"))
    site.start_worker()
    site.until(import_(site, "found", folder=str(root)), JobState.succeeded)
    assert version(site, "found") == plain
    report = dataset(site, "found").report
    assert report is not None
    left_out = {one["file"]: one["code"] for one in report["rejected"]}
    assert left_out == dict.fromkeys(
        ("train/ants/link.jpg", "train/bees/out", "train/ants/pipe.jpg"), "not_a_plain_file"
    )
    (tmp_path / "images" / "way").symlink_to(secret)
    job = site.until(import_(site, "out", folder=str(tmp_path / "images" / "way")), JobState.failed)
    assert job.failure is not None
    assert "cannot be read" in job.failure["detail"]
    wait_for(lambda: site.scratch() == [])


def test_addresses_become_a_dataset_and_each_that_fails_is_named(
    site: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    allow(site, monkeypatch, import_hosts="localhost")
    with tls_server(pem) as server:
        named = []
        for label in ("ants", "bees"):
            for number in range(4):
                path = f"/{label}/{number}"
                server.pages[path] = body(jpeg(photo(label == "bees", number)))
                split = "val" if number == 3 else "train"
                named.append({"url": server.url(path), "label": label, "split": split, "metadata": {"n": number}})
        server.pages["/text"] = body(b"no image")
        bad = {
            server.url("/text"): "not_an_image",
            server.url("/none"): "http_status",
            server.url("/ants/0", "127.0.0.1"): "forbidden_address",
            "http://localhost/a.jpg": "bad_url",
        }
        named += [{"url": url, "label": "ants"} for url in bad]
        site.start_worker()
        site.until(import_(site, "found", urls=named), JobState.succeeded)
        report = dataset(site, "found").report
        assert report is not None
        assert {one["file"]: one["code"] for one in report["rejected"]} == bad
        assert (report["files"], report["accepted"]) == (12, 8)
        with site.stage.database.reading() as session:
            query = select(DatasetImage).where(DatasetImage.dataset_id == dataset(site, "found").id)
            images = session.scalars(query).all()
            assert {(one.name, one.label, one.split) for one in images} == {
                (one["url"], one["label"], one["split"]) for one in named[:8]
            }
            assert {one.extra["n"] for one in images if one.extra} == {0, 1, 2, 3}
        job = site.until(import_(site, "large", max_bytes=2000, urls=named), JobState.failed)
        assert job.failure is not None
        assert "GRAFT_MAX_EXPANDED_BYTES" in job.failure["detail"]
    wait_for(lambda: site.scratch() == [])


@pytest.fixture
def s3() -> Iterator[tuple[Any, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    yield client, endpoint
    client.close()
    server.stop()


def test_a_prefix_of_a_bucket_becomes_the_dataset_that_its_archive_does(
    site: Service, plain: str, monkeypatch: pytest.MonkeyPatch, s3: tuple[Any, str]
) -> None:
    client, endpoint = s3
    client.create_bucket(Bucket="images")
    for name, data in FILES.items():
        client.put_object(Bucket="images", Key=f"pets/{name}", Body=data)
    client.put_object(Bucket="images", Key="pets-old/ants/other.jpg", Body=jpeg(photo(0, 99)))
    given = {"s3_endpoint": endpoint, "s3_access_key": "key", "s3_secret_key": "secret", "buckets": "images/pets"}
    allow(site, monkeypatch, **{f"import_{name}": value for name, value in given.items()})
    site.start_worker()
    site.until(import_(site, "found", s3="s3://images/pets"), JobState.succeeded)
    assert version(site, "found") == plain
    wait_for(lambda: site.scratch() == [])


@pytest.mark.parametrize("how", ["archive", "reference"])
def test_a_reading_that_is_cancelled_or_killed_leaves_nothing_and_can_be_run_again(
    site: Service, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    root = write(tmp_path / "images")
    allow(site, monkeypatch, import_folders=str(root))
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("GRAFT_TEST_MARKS", str(marks))

    def begin() -> UUID:
        (marks / "hold").touch()
        (marks / "reached").unlink(missing_ok=True)
        if how == "archive":
            site.stage.upload(site.workspace, "found", folder_zip({"ants": 4, "bees": 4}, {"train": 3, "val": 1}))
            with site.stage.database.reading() as session:
                job_id = session.scalars(select(Job.id).where(Job.dataset_id == dataset(site, "found").id)).one()
        else:
            job_id = import_(site, "found", folder=str(root))
        wait_for(lambda: (marks / "reached").exists() and (marks / "reached").read_text())
        return job_id

    site.start_worker(kinds_with(doing(INGEST, ingest_and_hold)))  # it has read everything and written nothing down
    job_id = begin()
    with site.stage.database.writing() as session:
        jobs.cancel(session, site.workspace.id, job_id)
    site.until(job_id, JobState.cancelled)
    cancelled = dataset(site, "found")
    assert (cancelled.state, cancelled.archive_sha256) == (DatasetState.failed, None)
    with site.stage.database.reading() as session:
        assert session.scalars(select(DatasetImage).where(DatasetImage.dataset_id == cancelled.id)).all() == []
    wait_for(lambda: site.scratch() == [])

    job_id = begin()  # under the same name
    child = int((marks / "reached").read_text())
    os.killpg(child, signal.SIGKILL)
    (marks / "hold").unlink()
    assert site.until(job_id, JobState.succeeded).attempt == 2
    assert version(site, "found") == plain
    wait_for(lambda: site.scratch() == [])
