"""Lists without end: every list that a caller sends has a longest length, and no answer is larger than the question."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.api.app import create_app
from app.api.problems import MOST_ERRORS
from app.api.routes import MOST_VALUES
from app.auth.schemas import Scope
from app.core.settings import Settings
from tests.support.attacked import SIZE, Attacked

SCHEMA = create_app(Settings(_env_file=None)).openapi()  # type: ignore[call-arg]
JSON = {"Content_Type": "application/json", "Connection": "keep-alive"}
JSON_ROUTES = ("/v1/keys", "/v1/jobs", "/v1/jobs:plan", "/v1/jobs:predict", "/v1/datasets:import")


def arrays(schema: Any, where: str, seen: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every list in a schema and in what it refers to."""
    if isinstance(schema, list):
        for one in schema:
            yield from arrays(one, where, seen)
        return
    if not isinstance(schema, dict):
        return
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    if name and name not in seen:
        seen.add(name)
        yield from arrays(SCHEMA["components"]["schemas"][name], name, seen)
    if schema.get("type") == "array":
        yield where, schema
    for key, one in schema.items():
        if key not in ("example", "examples", "default"):
            yield from arrays(one, f"{where}.{key}", seen)


def test_every_list_that_is_sent_has_a_longest_length() -> None:
    found = []
    for path, operations in SCHEMA["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {})
            sent = [body.get("application/json", {}), operation.get("parameters", [])]
            found += list(arrays(sent, f"{method} {path}", set()))
    assert len(found) > 5
    assert [where for where, schema in found if "maxItems" not in schema] == []


def bodies(most: int) -> Iterator[tuple[str, bytes]]:
    """Yield what is wrong in every place."""
    for key in ("images", "urls", "scopes", "inputs", "classes", "hidden"):
        yield key, json.dumps({key: [1] * most}, separators=(",", ":")).encode()
    yield "nested", b"[" * most + b"]" * most
    yield "unknown", json.dumps({f"{number:x}": 1 for number in range(most)}, separators=(",", ":")).encode()
    yield "text", json.dumps({"name": "," * most}).encode()


@pytest.mark.parametrize("most", [1000, MOST_VALUES - 10, SIZE * 500_000])
def test_no_answer_is_larger_than_its_question(attacked: Attacked, most: int) -> None:
    key = attacked.keys[Scope.admin]
    model = "/v1/models/nothing/predict"
    with attacked.stays_small():
        for path in (*JSON_ROUTES, model):
            for name, body in bodies(most):
                heard = attacked.ask(f"POST {path}", body, key, **JSON)
                assert heard.status in (400, 404, 413, 422), (path, name, heard)
                assert len(heard.body) < 16_384, (path, name)
                assert len(heard.problem.get("errors", [])) <= MOST_ERRORS  # type: ignore[arg-type]


def test_an_answer_says_how_many_errors_there_are(attacked: Attacked) -> None:
    body = json.dumps({"dataset": "x"} | {f"unknown_{number}": 1 for number in range(100)}).encode()
    heard = attacked.ask("POST /v1/jobs", body, attacked.keys[Scope.write], Content_Type="application/json")
    assert heard.status == 422
    assert len(heard.problem["errors"]) == MOST_ERRORS  # type: ignore[arg-type]
    assert heard.problem["error_count"] == 100


def test_others_are_answered_while_large_lists_come(attacked: Attacked) -> None:
    """The largest JSON that is taken costs its sender, and not who asks meanwhile."""
    body = json.dumps({"urls": [{"url": "https://x/y", "label": 1}] * 150_000}, separators=(",", ":")).encode()
    key = attacked.keys[Scope.write]
    with watched(attacked) as alone:
        time.sleep(1)
    with attacked.stays_small(), watched(attacked) as beside:
        for _ in range(SIZE * 3):
            heard = attacked.ask("POST /v1/datasets:import", body, key, **JSON)
            assert heard.status == 422, heard
            assert len(heard.body) < 16_384
    assert max(beside) < max(1.0, 5 * max(alone))


@contextmanager
def watched(attacked: Attacked) -> Iterator[list[float]]:
    """Ask for the service's health all the while: the seconds that each answer took."""
    took, ended = [attacked.healthy()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            took.append(attacked.healthy())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield took
    finally:
        ended.set()
        thread.join()
