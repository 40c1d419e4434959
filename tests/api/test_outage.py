"""A loaded model goes on answering callers and names that are known while the database is away, for a stated while."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from app.core.settings import Settings
from app.vision.training.result import FitResult
from tests.support.calls import problem
from tests.support.images import jpeg, photo
from tests.support.services import Service, open_service

Away = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def away(postgresql_url: str, postgres_url: Callable[[str], str]) -> Away:
    """Takes the service's database away for a while: nobody can connect to it by its name."""
    name = str(make_url(postgresql_url).database)

    @contextmanager
    def gone() -> Iterator[None]:
        with psycopg.connect(postgres_url("postgres"), autocommit=True) as server:

            def rename(before: str, after: str) -> None:
                server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [before])
                server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*map(sql.Identifier, (before, after))))

            rename(name, f"{name}_away")
            try:
                yield
            finally:
                rename(f"{name}_away", name)

    return gone


def ask(api: Service, model: str, caller: object = None) -> int:
    return (caller or api.predict).post(f"/v1/models/{model}/predict", content=jpeg(photo(0, 1))).status_code  # type: ignore[attr-defined, no-any-return]


def test_what_is_known_is_answered_and_nothing_else(
    settings: Settings, postgresql_url: str, away: Away, trained: FitResult
) -> None:
    with open_service(settings.model_copy(update={"database_url": postgresql_url})) as api:
        model = api.model(trained, "pets")
        assert [ask(api, reference) for reference in (model, "pets")] == [200, 200]
        with away():
            assert [ask(api, reference) for reference in (model, "pets") * 2] == [200] * 4
            assert ask(api, model, api.write) == 503  # a key that was not seen before
            assert ask(api, "dogs") == 503
            problem(api.write.post("/v1/jobs", json={"dataset": "pets"}), 503, "database_unavailable")
            assert ask(api, model) == 200  # though another call was refused
        assert ask(api, model, api.write) == 200


def test_the_while_ends(settings: Settings, postgresql_url: str, away: Away, trained: FitResult) -> None:
    given = settings.model_copy(update={"database_url": postgresql_url, "outage_seconds": 0.0})
    with open_service(given) as api:
        model = api.model(trained, "pets")
        assert ask(api, "pets") == 200
        with away():
            assert ask(api, "pets") == 503
        assert ask(api, model) == 200


def test_a_key_that_was_revoked_here_is_not_known_any_more(
    settings: Settings, postgresql_url: str, away: Away, trained: FitResult
) -> None:
    with open_service(settings.model_copy(update={"database_url": postgresql_url})) as api:
        model = api.model(trained, "pets")
        assert ask(api, model) == 200
        keys = {one["name"]: one["id"] for one in api.admin.get("/v1/keys").json()["items"]}
        assert api.admin.delete(f"/v1/keys/{keys['predict']}").status_code == 200
        with away():
            assert ask(api, model) == 503
        assert ask(api, model) == 401
