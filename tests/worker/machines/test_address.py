"""The address that a worker gives to others."""

import socket
from typing import Any

import pytest

from app.core.settings import Settings
from worker.machines.address import interface_of, own_address


def address(**given: Any) -> str:
    return own_address(Settings(**given, _env_file=None))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"worker_address": "gpu-1.internal", "database_url": "postgresql://u@127.0.0.1/d"}, "gpu-1.internal"),
        ({"database_url": "postgresql://u@127.0.0.1:6000/d"}, "127.0.0.1"),
        ({"database_url": "postgresql://u@/d?host=127.0.0.1"}, "127.0.0.1"),
        ({"database_url": "postgresql://u@/d?host=/run/postgresql"}, "127.0.0.1"),
        ({"database_url": "postgresql://u@/d"}, "127.0.0.1"),
        ({"database_url": "postgresql://u@name.invalid/d"}, socket.gethostname()),
        ({}, "127.0.0.1"),
    ],
)
def test_it_is_the_one_that_is_set_or_that_the_database_sees(given: dict[str, Any], expected: str) -> None:
    assert address(**given) == expected


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("localhost") == "lo"
    assert interface_of("192.0.2.1") is None  # for documentation (RFC 5737): nobody has it
    assert interface_of("name.invalid") is None
