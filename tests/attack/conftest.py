"""A service to attack."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attacked import Attacked, attack


@pytest.fixture(scope="module")
def attacked(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One service for the attacks of a module."""
    with attack(migrated_sqlite, tmp_path_factory.mktemp("attacked")) as found:
        yield found
