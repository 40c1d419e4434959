"""Files fetched from a real TLS server: no caller gets this service to ask an address that is not open to it."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from app.core.outbound.addresses import read_allowed
from app.core.outbound.errors import OutboundError
from app.core.outbound.exchange import Bounds, Exchange
from app.core.outbound.fetching import Fetcher
from tests.support.tls import TlsServer, body, certificate, redirect, tls_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsServer]:
    pem = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with tls_server(pem) as running:
        running.pages["/a.jpg"] = body(b"bytes")
        yield running


def fetcher(*allowed: str, max_bytes: int = 1000, seconds: float = 60.0) -> Fetcher:
    bounds = Bounds(max_bytes, seconds, "GRAFT_MAX_FILE_BYTES")
    return Fetcher(Exchange(read_allowed(allowed, "GRAFT_IMPORT_HOSTS"), bounds))


def rejected(fetching: Fetcher, url: str, code: str) -> OutboundError:
    with pytest.raises(OutboundError) as caught:
        fetching.fetch(url)
    assert caught.value.code == code, caught.value
    assert caught.value.reason
    assert caught.value.remedy
    return caught.value


def test_a_file_is_fetched_where_its_host_is_allowed(server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody there; nobody is asked
    assert fetcher("localhost").fetch(server.url("/a.jpg")) == b"bytes"
    assert server.hosts == {f"localhost:{server.port}"}
    assert fetcher("127.0.0.0/8", "::1").fetch(server.url("/a.jpg?x=1#part")[: -len("?x=1#part")]) == b"bytes"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_an_inner_address_is_not_asked_however_it_is_written(server: TlsServer, host: str) -> None:
    with pytest.raises(OutboundError) as caught:
        fetcher().fetch(server.url("/a.jpg", host))
    assert caught.value.code in ("forbidden_address", "unreachable")  # some resolvers read no odd forms
    assert caught.value.code == "forbidden_address" or host in ("2130706433", "0x7f.1")
    assert server.asked == []


def test_a_redirect_is_followed_and_checked_like_the_first_address(server: TlsServer) -> None:
    allowed = fetcher("localhost")
    server.pages["/moved"] = redirect("/a.jpg", 307)
    assert allowed.fetch(server.url("/moved")) == b"bytes"
    for number, to in enumerate((server.url("/a.jpg", "127.0.0.1"), "https://169.254.169.254/latest/meta-data")):
        server.pages[f"/{number}"] = redirect(to)
        assert "GRAFT_IMPORT_HOSTS" in rejected(allowed, server.url(f"/{number}"), "forbidden_address").remedy
    for number, to in enumerate(("http://localhost/a.jpg", "file:///etc/passwd", "https://u:p@localhost/"), start=5):
        server.pages[f"/{number}"] = redirect(to)
        rejected(allowed, server.url(f"/{number}"), "bad_url")
    server.pages["/loop"] = redirect("/loop")
    server.asked.clear()
    rejected(allowed, server.url("/loop"), "too_many_redirects")
    assert len(server.asked) == 6


def test_a_name_that_resolves_anew_changes_nothing(server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer is allowed, every later one is not: what was checked is what is connected to."""
    answers, resolved, connected = iter(["127.0.0.1"]), [], []
    real_connect = socket.create_connection

    def resolve(host: str, port: int, *_: Any, **__: Any) -> Any:
        address = next(answers, "127.0.0.2")
        resolved.append(address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address: tuple[str, int], *rest: Any) -> socket.socket:
        connected.append(address[0])
        monkeypatch.undo()  # an address needs no name service, whoever it is asked of
        return real_connect(address, *rest)

    fetching = fetcher("127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert fetching.fetch(server.url("/a.jpg")) == b"bytes"
    assert (resolved, connected) == (["127.0.0.1"], ["127.0.0.1"])


def test_one_closed_address_among_several_closes_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert "10.0.0.1" in rejected(fetcher(), "https://mixed.example/a.jpg", "forbidden_address").reason


def test_a_certificate_that_is_not_valid_is_refused(server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rejected(fetcher("127.0.0.1"), server.url("/a.jpg", "127.0.0.1"), "unreachable")  # of another name
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate" in rejected(fetcher("localhost"), server.url("/a.jpg"), "unreachable").reason
    assert server.asked == []


def test_bytes_are_counted_as_they_come(server: TlsServer) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:  # ends when the caller hangs up
            handler.wfile.write(b"x" * 500)

    server.pages["/endless"] = endless
    server.pages["/large"] = body(b"x" * 1001)
    for path in ("/endless", "/large"):
        assert "GRAFT_MAX_FILE_BYTES" in rejected(fetcher("localhost"), server.url(path), "file_too_large").remedy
    server.pages["/fits"] = body(b"x" * 1000)
    assert len(fetcher("localhost").fetch(server.url("/fits"))) == 1000


def test_a_server_that_dribbles_is_left(server: TlsServer) -> None:
    left = threading.Event()

    def dribble(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not left.wait(0.05):
                handler.wfile.write(b"x")
        finally:
            left.set()

    server.pages["/slow"] = dribble
    try:
        rejected(fetcher("localhost", max_bytes=10**9, seconds=1.0), server.url("/slow"), "too_slow")
    finally:
        left.set()


def test_what_may_pass_is_tried_again_and_what_does_not_is_named(server: TlsServer) -> None:
    answers = iter([503, 200])
    server.pages["/busy"] = lambda handler: body(b"bytes", next(answers))(handler)
    assert fetcher("localhost").fetch(server.url("/busy")) == b"bytes"
    server.pages["/down"] = body(b"", 500)
    rejected(fetcher("localhost"), server.url("/down"), "unreachable")
    assert "404" in rejected(fetcher("localhost"), server.url("/none"), "http_status").reason
    assert server.asked.count("/none") == 1


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.org/a.jpg",
            "ftp://example.org/",
            "https://",
            "https:///a",
            "https://u@example.org/",
            "a.jpg",
            "",
        ),
        *("https://example.org:0/", "https://example.org:99999/", "https://exa mple.org/", "https://e.org/\r\nX: y"),
        *("https://e.org/" + "a" * 3000, "https://[::1", "file:///etc/passwd", "https://e\x00.org/"),
    ],
)
def test_what_is_no_https_address_is_refused(url: str) -> None:
    rejected(fetcher(), url, "bad_url")
