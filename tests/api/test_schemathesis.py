"""The OpenAPI document as a machine reads it: whatever it allows, and much that it does not, is answered as it says.

Every operation is asked with made-up ids, and again with those of things that are there. `make schema` asks far more.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

from app.core.settings import Settings
from app.datasets.orm import DatasetImage, DatasetVersion
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES
from tests.support.services import Service, open_service

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


@pytest.fixture(scope="module")
def service(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, trained: FitResult) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("asked")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    configured = Settings(home=home, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
    with open_service(configured, "socket") as service:
        yield service


@pytest.fixture(scope="module")
def there(service: Service, trained: FitResult) -> dict[str, str]:
    """Parameters of paths that lead somewhere."""
    dataset, job_id = service.dataset("pets"), service.training("pets")
    job = service.stage.claim("train")
    assert job is not None
    model = str(service.stage.finish(job, trained, CLASSES))
    with service.database.reading() as session:
        version = session.query(DatasetVersion).one().id
        image = session.query(DatasetImage).first()
        assert image is not None
        sha256 = image.sha256
    said = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000"}
    begun = service.admin.post("/v1/uploads", headers=said).raise_for_status()
    return {
        "dataset_id": dataset,
        "dataset": dataset,
        "version_id": str(version),
        "version": "1",
        "number": "1",
        "sha256": sha256,
        "job_id": job_id,
        "model_id": model,
        "model": model,
        "name": "pets",
        "alias": "production",
        "split": "val",
        "upload_id": begun.headers["Location"].rpartition("/")[2],
    }


@pytest.fixture(scope="module")
def operations(service: Service) -> list[Any]:
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=schemathesis.Config())
    return [found.ok() for found in document.get_all_operations()]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as allowed", "otherwise"])
def test_every_call_is_answered_as_the_document_says(
    operations: list[Any], service: Service, there: dict[str, str], mode: GenerationMode
) -> None:
    answered = dict.fromkeys((operation.label for operation in operations), 0)
    failures: list[str] = []

    def ask(case: schemathesis.Case) -> None:
        checks = CHECKS[:-1] if case.operation.label in STREAMS else CHECKS
        case.call_and_validate(base_url=service.url, headers=service.admin.headers, checks=checks, timeout=60)
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
            known = {name: there[name] for name in case.path_parameters if name in there}
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
