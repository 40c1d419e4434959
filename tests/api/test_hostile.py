"""What is made to do harm is refused with a reason, reaches nothing outside the staging folder, and leaves nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import Invalid
from app.datasets.ingestion import UnusableUpload
from tests.support.hostile import ARCHIVES, GOOD, IMAGES, zipped
from tests.support.services import OpenService, Service, open_service

assert len(ARCHIVES) + len(IMAGES) >= 70


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def api(make_api: OpenService) -> Service:
    return make_api(max_archive_entries=1000)


@pytest.mark.parametrize("what", ARCHIVES)
def test_a_hostile_archive_is_refused_with_its_reason(api: Service, tmp_path: Path, what: str) -> None:
    archive, codes = ARCHIVES[what]
    around = set(tmp_path.parent.iterdir())  # what lies in these folders is other tests', and may change
    answer = api.write.post("/v1/datasets?name=pets", content=archive)
    if answer.status_code == 202:  # its labels are read where its images are
        with pytest.raises((Invalid, UnusableUpload)) as caught:
            api.stage.read_uploads()
        code, detail = getattr(caught.value, "cause", caught.value).code, str(caught.value)
    else:
        assert 400 <= answer.status_code < 500, answer.text
        code, detail = answer.json()["code"], answer.json()["detail"]
    assert code in codes, detail
    assert detail
    assert api.scratch() == []
    assert set(tmp_path.parent.iterdir()) == around
    assert not any("evil" in name for name in files_below(tmp_path))
    assert not os.path.lexists("/tmp/evil.jpg")
    assert api.read.get("/readyz").status_code == 200


@pytest.fixture(scope="module")
def taken(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has read one upload with every hostile image in it, by the worker's own means."""
    import shutil

    from app.core.settings import Settings

    home = tmp_path_factory.mktemp("hostile")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    settings = Settings(home=home, weights_download=False, _env_file=None)  # type: ignore[call-arg]
    with open_service(settings) as api:
        api.dataset("pets", zipped(GOOD | {f"ants/{name}": data for name, (data, _) in IMAGES.items()}))
        yield api


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_left_out_with_its_reason(taken: Service, name: str) -> None:
    report = taken.read.get("/v1/datasets/pets").json()["report"]
    assert (report["accepted"], report["rejected_count"]) == (len(GOOD), len(IMAGES))
    (found,) = [one for one in report["rejected"] if one["file"] == f"ants/{name}"]
    assert found["code"] == IMAGES[name][1], found
    assert found["reason"].endswith(".")
    assert found["remedy"].endswith(".")


def test_hostile_images_that_are_added_one_by_one_are_refused_one_by_one(taken: Service) -> None:
    files = [("file", (name, data)) for name, (data, _) in IMAGES.items()]
    answer = taken.write.post("/v1/datasets/pets/images?label=ants", files=files)
    assert answer.status_code == 207
    assert {one["file"]: one["error"]["code"] for one in answer.json()["items"]} == {
        name: code for name, (_, code) in IMAGES.items()
    }
    assert taken.scratch() == []
    assert len(taken.read.get("/v1/datasets/pets/images").json()["items"]) == len(GOOD)
