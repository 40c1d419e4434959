"""A service whose disk is full answers with a problem document, keeps nothing of what it refused, and recovers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.core.settings import Settings
from tests.support.calls import problem
from tests.support.disks import MIB, mount
from tests.support.images import folder_zip
from tests.support.resumable import ARCHIVE as PIECES
from tests.support.resumable import begin, offset, send
from tests.support.services import Service, open_service


@pytest.fixture
def full(tmp_path: Path, sqlite_url: str) -> Iterator[tuple[Service, Path]]:
    """A service on a small disk, its database included, and the file that fills the disk."""
    if os.geteuid() != 0:
        pytest.skip("file systems can be mounted by root alone")
    home = tmp_path / "home"
    home.mkdir()
    mount("-o", "size=8m", "none", str(home))
    try:
        (home / "graftwork.db").write_bytes((tmp_path / "graftwork.db").read_bytes())
        given = Settings(home=home, weights_download=False, min_free_bytes=0, readiness_seconds=0.0, _env_file=None)  # type: ignore[call-arg]
        with open_service(given) as api:
            yield api, home / "ballast"
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(MIB // 64))


def test_an_upload_is_refused_with_507_and_taken_when_there_is_room(full: tuple[Service, Path]) -> None:
    api, ballast = full
    archive = folder_zip({"ants": 4, "bees": 4})
    fill(ballast)
    refused = problem(api.write.post("/v1/datasets?name=pets", content=archive), 507, "storage_full", remedy="Free")
    assert "0 MiB free" in refused["detail"]
    assert api.scratch() == []
    assert api.read.get("/v1/datasets").json()["items"] == []  # reading goes on
    assert api.nobody.get("/readyz/uploads").status_code == 503
    assert api.nobody.get("/readyz").status_code == 200  # it can answer
    ballast.unlink()
    assert api.write.post("/v1/datasets?name=pets", content=archive).status_code == 202
    assert api.nobody.get("/readyz/uploads").status_code == 200


def test_a_row_that_does_not_fit_is_refused_whole(full: tuple[Service, Path]) -> None:
    api, ballast = full
    api.dataset("pets")
    fill(ballast)
    answer = api.write.post("/v1/jobs", json={"dataset": "pets"})
    assert answer.status_code in (503, 507), answer.text
    problem(answer, answer.status_code, answer.json()["code"])
    assert api.read.get("/v1/jobs").json()["items"] == []
    ballast.unlink()
    assert api.write.post("/v1/jobs", json={"dataset": "pets"}).status_code == 202


def test_a_resumable_upload_waits_for_room_and_goes_on(full: tuple[Service, Path]) -> None:
    api, ballast = full
    address = begin(api.write, name="pets").headers["location"]
    fill(ballast)
    answer = send(api.write, address, 0, PIECES)
    problem(answer, answer.status_code, answer.json()["code"])
    assert answer.status_code in (503, 507), answer.text
    ballast.unlink()
    there = offset(api.read, address)
    assert send(api.write, address, there, PIECES[there:]).status_code == 204
    api.stage.read_uploads()
    assert api.read.get("/v1/datasets/pets").json()["state"] == "ready"
