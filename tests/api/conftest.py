"""Services whose API is called: one of a test's own, and one for all tests with a real worker beside it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.api.app import create_app
from app.api.predict_path.kept import Shortcuts
from app.core.settings import Settings
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES
from tests.support.deployments import worker_process
from tests.support.services import OpenService, Service, open_service
from tests.support.stages import train_tiny


@pytest.fixture
def make_api(settings: Settings, sqlite_url: str) -> Iterator[OpenService]:
    """Makes this test's service; keywords are settings, and `shortcuts` those of its predict calls."""
    with ExitStack() as stack:

        def make(shortcuts: Shortcuts | None = None, **given: Any) -> Service:
            changed = settings.model_copy(update=given)
            return stack.enter_context(open_service(changed, app=create_app(changed, shortcuts)))

        yield make


@pytest.fixture
def api(make_api: OpenService) -> Service:
    """A service of this test's own, with nobody who works."""
    return make_api()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A model that tells ants from bees."""
    return train_tiny(tmp_path_factory.mktemp("trained"), CLASSES)


@pytest.fixture
def model_id(api: Service, trained: FitResult) -> str:
    return api.model(trained)


@pytest.fixture(scope="session")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave no datasets or jobs behind."""
    home = tmp_path_factory.mktemp("shared")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    short = {"weights_download": False, "engines": "torch", "stream_seconds": 0.1}
    with open_service(Settings(home=home, **short, _env_file=None)) as found:  # type: ignore[arg-type]
        yield found


@pytest.fixture(scope="session")
def worked(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Service]]:
    """Gives workspaces in one service that has a worker."""
    home = tmp_path_factory.mktemp("worked")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    settings = Settings(home=home, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
    with open_service(settings) as first, worker_process(home):
        yield first.beside


@pytest.fixture
def working(worked: Callable[[], Service]) -> Service:
    """A workspace of this test's own in a service that has a worker."""
    return worked()
