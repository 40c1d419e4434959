"""What two services say of one home is compared field by field, and the command takes a checkout that can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.old_home import TESTS, main
from tests.support.homes import changes, lost
from tests.support.images import REPOSITORY


def test_more_may_be_said_and_nothing_less() -> None:
    old = {"items": [{"id": 1, "state": "queued"}]}
    assert changes(old, {"items": [{"id": 1, "state": "queued", "task": "classify"}], "total": 1}) == []
    assert changes(old, {"items": [{"id": 1}]}) == ["/items/0/state is gone"]
    assert changes(old, {"items": [{"id": 1, "state": "failed"}]}) == ['/items/0/state: "queued" is now "failed"']
    assert changes(old, {"items": []})[0].startswith("/items: [")
    assert lost({"/v1/jobs": old}, {}) != []


def test_what_is_of_the_moment_does_not_count() -> None:
    assert changes({"serving": {"engine": None}}, {"serving": {"engine": "torch"}}) == []
    assert changes({"serving": {"engine": None}}, {}) == ["/serving is gone"]


def test_the_command_needs_a_checkout(tmp_path: Path) -> None:
    assert (REPOSITORY / TESTS).is_file()
    with pytest.raises(SystemExit, match="is no checkout with an environment"):
        main(["--before", str(tmp_path)])
