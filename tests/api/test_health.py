"""Health is open to anyone and says what works, and no more."""

import shutil

from tests.support.services import Service


def test_a_living_process_says_so(api: Service) -> None:
    assert api.nobody.get("/healthz").json() == {"status": "ok"}


def test_a_service_that_can_work_is_ready(api: Service) -> None:
    response = api.nobody.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "checks": {"database": "ok", "storage": "ok"}}


def test_without_its_schema_it_is_alive_and_not_ready(api: Service) -> None:
    with api.stage.database.writing() as session:
        session.connection().exec_driver_sql("DROP TABLE alembic_version")
    response = api.nobody.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "status": "not_ready",
        "checks": {"database": "database_unavailable", "storage": "ok"},
    }
    assert api.nobody.get("/healthz").status_code == 200


def test_without_its_storage_it_is_alive_and_not_ready(api: Service) -> None:
    blobs = api.stage.settings.home / "blobs"
    shutil.rmtree(blobs, ignore_errors=True)
    blobs.write_text("in the way")
    response = api.nobody.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"] == {"database": "ok", "storage": "storage_unavailable"}
    assert str(blobs) not in response.text
    assert api.nobody.get("/healthz").status_code == 200
