"""The key comes before the body on every route of the application, which are walked: a new one is among them."""

import pytest

from app.api.app import create_app
from app.api.deps import OPEN_ROUTES
from app.api.routes import Route
from app.auth.schemas import Scope
from app.core.settings import Settings
from tests.support.attacked import SIZE, Attacked
from tests.support.routes import filled, walk, walk_routes

ROUTES = sorted(walk(create_app(Settings(_env_file=None)).routes))  # type: ignore[call-arg]
OPEN = OPEN_ROUTES | {"/docs", "/openapi.json"}
GIB = str(2**30)
VERBS = ("GET", "HEAD", "OPTIONS")


def test_every_route_checks_the_key_by_itself() -> None:
    for route in walk_routes(create_app(Settings(_env_file=None)).routes):  # type: ignore[call-arg]
        assert isinstance(route, Route) or route.path in ("/docs", "/openapi.json"), route.path


@pytest.mark.parametrize("who", ["nobody", "garbage", "revoked"])
def test_who_has_no_key_is_told_so_before_the_body_comes(attacked: Attacked, who: str) -> None:
    """The body is declared and never sent: who waits for it does not answer."""
    with attacked.stays_small():
        for method, path in ROUTES:
            heard = attacked.ask(f"{method} {filled(path)}", key=attacked.keys[who], Content_Length=GIB)
            wanted = 200 if path in OPEN else 401
            assert heard.status == wanted, (method, path, heard)


@pytest.mark.parametrize("who", ["nobody", "read", "other"])
def test_other_methods_answer_without_the_body(attacked: Attacked, who: str) -> None:
    with attacked.stays_small():
        for path in sorted({path for _, path in ROUTES}):
            for verb in VERBS:
                heard = attacked.ask(f"{verb} {filled(path)}", key=attacked.keys[who], Content_Length=GIB)
                assert heard.status < 500, (verb, path, heard)
                if who == "nobody" and path not in OPEN:
                    assert heard.status in (401, 405), (verb, path, heard)


def test_too_small_a_scope_is_told_before_the_body_comes(attacked: Attacked) -> None:
    with attacked.stays_small():
        for method, path in ROUTES:
            heard = attacked.ask(f"{method} {filled(path)}", key=attacked.keys[Scope.read], Content_Length=GIB)
            assert heard.status < 500, (method, path, heard)
            if method not in ("GET", "OPTIONS") and path != "/v1/jobs:plan":  # which a read key may ask
                assert heard.status == 403, (method, path, heard)


def test_no_route_waits_for_more_than_it_takes(attacked: Attacked) -> None:
    """Another workspace's administrator may call all of them, and finds nothing; a GiB is too much for each."""
    with attacked.stays_small():
        for method, path in ROUTES:
            heard = attacked.ask(
                f"{method} {filled(path)}",
                key=attacked.keys["other"],
                Content_Length=GIB,
                Content_Type="application/json",
                Tus_Resumable="1.0.0",
            )
            assert heard.status < 500, (method, path, heard)


def test_what_is_sent_without_a_key_is_not_kept(attacked: Attacked) -> None:
    """Bytes that come all the same are thrown away as they come."""
    body = b'{"target_precision": 0.9, "x": "' + b"x" * (SIZE * 70 << 20) + b'"}'
    with attacked.stays_small():
        for who in ("nobody", "read"):
            path = "/v1/models/0190a0a0-0000-7000-8000-000000000000/decisions"
            heard = attacked.ask(
                f"PUT {path}", body, attacked.keys[who], Content_Type="application/json", Connection="keep-alive"
            )
            assert heard.status in (401, 403)


def test_a_large_json_is_refused_by_the_limit_of_its_route(attacked: Attacked) -> None:
    with attacked.stays_small():
        for path in ("/v1/keys", "/v1/jobs", "/v1/jobs:predict"):
            key = attacked.keys[Scope.admin]
            heard = attacked.ask(f"POST {path}", key=key, Content_Length=str(2**21), Content_Type="application/json")
            assert heard.status == 413, heard
            assert "GRAFT_MAX_JSON_BYTES" in str(heard.problem["detail"])
