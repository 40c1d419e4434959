"""Health is open to anyone and says what works, and no more."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from starlette.testclient import TestClient

from app.api.app import create_app
from app.core.migrations import migrate
from app.core.settings import Settings
from app.vision.training.result import FitResult
from tests.support.images import jpeg, photo
from tests.support.services import OpenService, Service, open_service

ALL_WELL = {"database": "ok", "models": "ok"}


@pytest.fixture
def looking(make_api: OpenService) -> Service:
    """A service that looks anew each time it is asked."""
    return make_api(readiness_seconds=0.0)


def test_a_living_process_says_so(api: Service) -> None:
    assert api.nobody.get("/healthz").json() == {"status": "ok"}


def test_a_service_that_can_work_is_ready(api: Service) -> None:
    response = api.nobody.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "checks": ALL_WELL}
    uploads = api.nobody.get("/readyz/uploads")
    assert uploads.status_code == 200
    assert uploads.json() == {"status": "ready", "checks": ALL_WELL | {"storage": "ok"}}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("DROP TABLE alembic_version", "schema_missing"),
        ("UPDATE alembic_version SET version_num = '0001'", "schema_too_old"),
        ("UPDATE alembic_version SET version_num = '9999'", "schema_too_new"),
    ],
)
def test_with_another_schema_it_is_alive_and_not_ready(looking: Service, change: str, word: str) -> None:
    with looking.stage.database.writing() as session:
        session.connection().exec_driver_sql(change)
    for path in ("/readyz", "/readyz/uploads"):
        response = looking.nobody.get(path)
        assert response.status_code == 503
        assert response.json()["checks"]["database"] == word
    assert looking.nobody.get("/v2/health/ready").status_code == 503
    assert looking.nobody.get("/healthz").status_code == 200


def test_without_its_storage_it_answers_and_takes_no_upload(looking: Service) -> None:
    blobs = looking.stage.settings.home / "blobs"
    shutil.rmtree(blobs, ignore_errors=True)
    blobs.write_text("in the way")
    response = looking.nobody.get("/readyz/uploads")
    assert response.status_code == 503
    assert response.json()["checks"] == ALL_WELL | {"storage": "storage_unavailable"}
    assert str(blobs) not in response.text
    assert looking.nobody.get("/readyz").status_code == 200


def test_what_was_found_is_told_again_and_the_store_is_not_asked_each_time(api: Service) -> None:
    assert api.nobody.get("/readyz/uploads").status_code == 200
    blobs = api.stage.settings.home / "blobs"
    shutil.rmtree(blobs, ignore_errors=True)
    blobs.write_text("in the way")
    assert api.nobody.get("/readyz/uploads").status_code == 200


def test_a_store_that_hangs_does_not_hold_the_answer_up(looking: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr(looking.stage.store, "check", lambda: free.wait(60))
    store = looking.http.app.state.services.store  # type: ignore[attr-defined]
    monkeypatch.setattr(store, "check", lambda: free.wait(60))
    began = time.monotonic()
    assert looking.nobody.get("/readyz/uploads").json()["checks"]["storage"] == "slow"
    assert time.monotonic() - began < 30, "it waited for the store"  # and not for its minute
    assert looking.nobody.get("/readyz").status_code == 200
    free.set()


def test_it_is_ready_once_its_pinned_models_are_loaded(
    settings: Settings, sqlite_url: str, trained: FitResult, tmp_path: Path
) -> None:
    with open_service(settings) as api:
        model = api.model(trained)
        assert api.write.post(f"/v1/models/{model}:pin").status_code == 200
    with open_service(settings.model_copy(update={"readiness_seconds": 0.0})) as again:
        seen = [again.nobody.get("/readyz").json()["checks"]["models"]]
        while seen[-1] != "ok" and len(seen) < 600:
            time.sleep(0.1)
            seen.append(again.nobody.get("/readyz").json()["checks"]["models"])
        assert set(seen) <= {"loading", "ok"}
        assert seen[-1] == "ok"
        services = again.http.app.state.services  # type: ignore[attr-defined]
        assert services.predictions.models.busy()


def test_with_a_model_loaded_it_stays_ready_while_its_database_is_away(
    settings: Settings, postgresql_url: str, postgres_url: Callable[[str], str], trained: FitResult
) -> None:
    given = settings.model_copy(update={"readiness_seconds": 0.0, "database_url": postgresql_url})
    name = make_url(postgresql_url).database
    with open_service(given) as api, psycopg.connect(postgres_url("postgres"), autocommit=True) as server:

        def rename(before: str, after: str) -> None:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [before])
            server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*map(sql.Identifier, (before, after))))

        rename(str(name), "elsewhere")
        assert api.nobody.get("/readyz").status_code == 503  # it has nothing to answer with
        rename("elsewhere", str(name))
        model = api.model(trained)
        image = jpeg(photo(0, 1))
        assert api.predict.post(f"/v1/models/{model}/predict", content=image).status_code == 200
        rename(str(name), "elsewhere")
        response = api.nobody.get("/readyz")
        assert response.status_code == 200
        assert response.json()["checks"]["database"] == "database_unavailable"
        assert api.nobody.get("/readyz/uploads").status_code == 503
        rename("elsewhere", str(name))


def test_it_is_ready_once_its_database_is_migrated(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"readiness_seconds": 0.0}))) as client:
        assert client.get("/readyz").json()["checks"]["database"] == "schema_missing"
        migrate(client.app.state.services.database)  # type: ignore[attr-defined]
        assert client.get("/readyz").status_code == 200
