"""Trainings on one machine share decoded images: those in the cache are not even fetched from the blob store."""

import io
import os
from pathlib import Path

import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.datasets import service as datasets
from app.datasets.manifest import read_manifest
from app.jobs.orm import Job
from app.storage import BlobMissing
from app.storage.configured import configured_store
from tests.support.stages import Stage
from worker.child.parent import Parent
from worker.kinds.train import train
from worker.processes.messages import Work


@pytest.mark.parametrize("cache_bytes", [2**30, 0])
def test_a_second_training_needs_no_image_that_the_first_has_decoded(
    sqlite_url: str, tmp_path: Path, cache_bytes: int
) -> None:
    settings = Settings(home=tmp_path, weights_download=False, cache_bytes=cache_bytes, _env_file=None)  # type: ignore[call-arg]
    stage = Stage(settings, Database(sqlite_url), configured_store(settings))
    workspace = stage.workspace()
    stage.dataset(workspace, "pets")
    with stage.database.reading() as session:
        job = session.get_one(Job, stage.job(workspace, "pets"))
        assert job.dataset_version_id is not None
        manifest_sha256 = datasets.get_version(session, job.dataset_version_id).manifest_sha256
        spec = job.spec

    def run(name: str, **fields: object) -> str:
        scratch = tmp_path / name
        scratch.mkdir()
        work = Work(spec=spec | fields, manifest_sha256=manifest_sha256, checkpoints=[], scratch=str(scratch))
        result = train(work, Parent(io.BytesIO()), settings)
        return str(result["artefact"]["sha256"])

    first = run("first")
    images = read_manifest(stage.store.read(manifest_sha256)).items
    for image in images:
        assert stage.store.delete(image.sha256)
    if cache_bytes:
        assert run("second") == first
        run("third", train="all", epochs=1)
        cached = sum(path.stat().st_size for path in settings.image_cache.rglob("*"))
        assert 0 < cached <= cache_bytes
    else:
        with pytest.raises(BlobMissing):
            run("second")
        assert not os.path.lexists(settings.image_cache)
    stage.database.close()
