"""The benchmark of the predict call's shortcuts runs, tiny: what they are worth is measured elsewhere."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from app.auth.schemas import Scope
from app.core.database import Database
from app.core.settings import Settings
from app.storage.configured import configured_store
from bench.predict_path import HERE, ONE_BY_ONE, OVERLOADED, TOGETHER, costs, table
from tests.support.calls import CLASSES
from tests.support.images import jpeg, photo
from tests.support.stages import Stage, train_tiny


@pytest.mark.parametrize("variants", [ONE_BY_ONE, TOGETHER, OVERLOADED])
def test_every_variant_answers(
    migrated_sqlite: Path, tmp_path: Path, settings: Settings, variants: dict[str, dict[str, object]]
) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "graftwork.db")
    database = Database(settings.sqlalchemy_url)
    stage = Stage(settings, database, configured_store(settings))
    workspace = stage.workspace()
    stage.dataset(workspace, "pets")
    stage.job(workspace, "pets")
    job = stage.claim("train")
    assert job is not None
    folder = tmp_path / "trained"
    folder.mkdir()
    model = stage.finish(job, train_tiny(folder, CLASSES), CLASSES)
    database.close()
    given = {
        "home": str(settings.home),
        "key": workspace.secrets[Scope.predict],
        "model": str(model),
        "images": [base64.b64encode(jpeg(photo(0, 50))).decode()],
        "variants": {"all": {}, **variants},
        **{"blocks": 2, "calls": 4, "at_once": 2, "queue": 64},
    }
    found = table(costs(HERE, given))
    assert found.keys() == {"all", *variants}
    assert all(row["loop_us"] > 0 and row["process_us"] >= row["loop_us"] for row in found.values())
