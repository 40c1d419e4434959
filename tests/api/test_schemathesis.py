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
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.transport.serialization import serialize_binary

from app.auth.schemas import Scope
from app.core.database import Database
from app.core.settings import Settings
from app.datasets.orm import DatasetImage, DatasetVersion
from app.storage.configured import configured_store
from app.vision.training.result import FitResult
from tests.api.conftest import served
from tests.support.calls import CLASSES
from tests.support.stages import Stage

EXAMPLES = int(os.environ.get("GRAFT_TEST_SCHEMA", "5"))  # of each operation


def no_fault(_: Any, response: Any, case: schemathesis.Case) -> None:
    """No 5xx but for a call that gave itself too little time."""
    if response.status_code >= 500:
        assert response.status_code == 503, response.text
        assert response.json()["code"] == "deadline_exceeded", response.text
        assert int(response.headers["retry-after"][0]) > 0


CHECKS = [no_fault, status_code_conformance, content_type_conformance, response_schema_conformance]
# OpenAPI 3.1 has no word for the events of a stream; tests/api/test_jobs.py reads them.
STREAMS = {"GET /v1/jobs/{job_id}/events", "GET /v1/events/stream"}


@schemathesis.serializer("application/offset+octet-stream")
def as_it_is(_: Any, value: Any) -> bytes:
    return serialize_binary(value)


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
    configured = Settings(home=home, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
    stage = Stage(configured, Database(configured.sqlalchemy_url), configured_store(configured))
    workspace = stage.workspace()
    dataset = str(stage.dataset(workspace, "pets"))
    job_id = stage.job(workspace, "pets")
    job = stage.claim("train")
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
    with served(configured) as port:
        url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {workspace.secrets[Scope.admin]}"}
        said = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000"}
        begun = httpx2.post(f"{url}/v1/uploads", headers=headers | said).raise_for_status()
        yield Service(url, headers, known | {"upload_id": begun.headers["Location"].rpartition("/")[2]})
    stage.database.close()


@pytest.fixture(scope="module")
def operations(service: Service) -> list[Any]:
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=schemathesis.Config())
    return [found.ok() for found in document.get_all_operations()]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as allowed", "otherwise"])
def test_every_call_is_answered_as_the_document_says(
    operations: list[Any], service: Service, mode: GenerationMode
) -> None:
    answered = dict.fromkeys((operation.label for operation in operations), 0)
    failures: list[str] = []

    def ask(case: schemathesis.Case) -> None:
        checks = CHECKS[:-1] if case.operation.label in STREAMS else CHECKS
        case.call_and_validate(base_url=service.url, headers=service.headers, checks=checks, timeout=60)
        answered[case.operation.label] += 1

    for operation in operations:
        if not (operation.path_parameters or operation.query or operation.body) and mode is GenerationMode.NEGATIVE:
            answered[operation.label] += 1  # there is nothing to get wrong
            continue

        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
        )
        @given(case=operation.as_strategy(mode))
        def asks(case: schemathesis.Case) -> None:
            ask(case)
            known = {name: service.known[name] for name in case.path_parameters if name in service.known}
            if known and case.method != "DELETE":  # the others need what is there
                case.path_parameters = dict(case.path_parameters) | known
                ask(case)

        try:
            asks()
        except (Exception, BaseExceptionGroup) as error:
            failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)
    assert all(answered.values()), answered
    assert len(answered) == len(operations) >= 60
