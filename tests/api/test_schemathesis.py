"""The OpenAPI document as a machine reads it: whatever it allows, and much that it does not, is answered as it says.

Every operation is asked with made-up ids, and again with those of things that are there. `make schema` asks far more.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.auth.schemas import Scope
from app.core.database import Database
from app.core.settings import Settings
from app.datasets.orm import DatasetImage, DatasetVersion
from app.jobs.states import JobKind
from app.storage.configured import configured_store
from app.vision.run import FitResult
from tests.api.calls import CLASSES
from tests.api.conftest import served
from tests.stages import Stage

EXAMPLES = int(os.environ.get("GRAFT_TEST_SCHEMA", "5"))  # of each operation
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass(frozen=True)
class Service:
    """A running service, a key for everything, and parameters of paths that lead somewhere."""

    url: str
    headers: dict[str, str]
    known: dict[str, str]


@pytest.fixture(scope="module")
def service(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, trained: FitResult) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("asked")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    settings = Settings(home=home, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
    stage = Stage(settings, Database(settings.sqlalchemy_url), configured_store(settings))
    workspace = stage.workspace()
    dataset = str(stage.dataset(workspace, "pets"))
    job_id = stage.job(workspace, "pets")
    job = stage.claim(JobKind.train)
    assert job is not None
    model = str(stage.finish(job, trained, CLASSES))
    with stage.database.reading() as session:
        version = session.query(DatasetVersion).one().id
        image = session.query(DatasetImage).first()
        assert image is not None
        sha256 = image.sha256
    known = {
        "dataset_id": dataset, "dataset": dataset, "version_id": str(version), "version": "1", "number": "1",
        "sha256": sha256, "job_id": str(job_id), "model_id": model, "model": model, "name": "pets",
        "alias": "production", "split": "val",
    }  # fmt: skip
    with served(settings) as port:
        url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {workspace.secrets[Scope.admin]}"}
        said = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000"}
        begun = httpx2.post(f"{url}/v1/uploads", headers=headers | said).raise_for_status()
        yield Service(url, headers, known | {"upload_id": begun.headers["Location"].rpartition("/")[2]})
    stage.database.close()


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    config = schemathesis.Config.from_dict(
        {
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
            # Every border of every parameter: thousands of calls, for the long run.
            "phases": {"coverage": {"enabled": EXAMPLES > 20}},
        }
    )
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=config)


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
def test_every_call_is_answered_as_the_document_says(case: schemathesis.Case, service: Service) -> None:
    asked = {"base_url": service.url, "headers": service.headers, "timeout": 60}
    case.call_and_validate(checks=CHECKS, **asked)
    known = {name: service.known[name] for name in case.path_parameters if name in service.known}
    if known and case.method != "DELETE":  # the others need it
        case.path_parameters = dict(case.path_parameters) | known
        case.call_and_validate(checks=CHECKS, **asked)
