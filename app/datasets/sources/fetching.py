"""Fetch a file over https for a caller who may mean harm: server-side request forgery is what this guards against.

Each hop's host is resolved once, all its addresses are checked, and the connection goes to the very address that was
checked (so a name that resolves anew changes nothing), with the host's own name in TLS and in `Host`. Redirects are
followed by hand, each as strictly as the first address. Nothing of this process's proxy settings is used.
"""

import http.client
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from app.datasets.intake.intake import RejectedImage
from app.datasets.sources.addresses import Allowed

_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 20.0  # without a byte
_REDIRECTS = 5
_TRIES = 3
_CHUNK = 1 << 16
_MAX_URL = 2048
_PERHAPS_LATER = frozenset({429, 500, 502, 503, 504})
_REDIRECTING = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bytes of one file, and seconds for it from the first look to the last byte."""

    max_bytes: int
    seconds: float = 60.0


class _Unsteady(Exception):
    """What may go well the next time."""


class Fetcher:
    """Safe to use from several threads at once."""

    def __init__(self, allowed: Allowed, limits: FetchLimits) -> None:
        self._allowed = allowed
        self._limits = limits
        self._tls = ssl.create_default_context()

    def fetch(self, url: str) -> bytes:
        """The bytes at `url`. Raises `RejectedImage`: `bad_url`, `forbidden_address`, `unreachable`, `http_status`,
        `too_many_redirects`, `file_too_large`, `too_slow`."""
        deadline = time.monotonic() + self._limits.seconds
        for number in range(1, _TRIES + 1):
            try:
                return self._follow(url, deadline)
            except _Unsteady as error:
                if time.monotonic() >= deadline:
                    reason = f"It took more than {self._limits.seconds:.0f} s ({error})."
                    raise RejectedImage("too_slow", reason, "Try again, or send the file itself.") from None
                if number == _TRIES:
                    reason = f"It cannot be fetched: {error}."
                    raise RejectedImage("unreachable", reason, "Check the address, and try again.") from None
                time.sleep(min(0.2 * number, max(0.0, deadline - time.monotonic())))
        raise AssertionError("unreachable")

    def _follow(self, url: str, deadline: float) -> bytes:
        for _ in range(_REDIRECTS + 1):
            found = self._get(check_url(url), deadline)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise RejectedImage(
            "too_many_redirects", f"It redirects more than {_REDIRECTS} times.", "Give the address where the file is."
        )

    def _get(self, url: SplitResult, deadline: float) -> bytes | str:
        """The body, or where to look instead."""
        connection = _Pinned(url, self._resolve(url), self._tls)
        # Whatever a server does to keep a connection busy, it ends then: each read by itself may be quick.
        watch = threading.Timer(max(0.0, deadline - time.monotonic()), connection.break_off)
        watch.daemon = True
        watch.start()
        try:
            connection.request("GET", _target(url), headers={"Accept": "image/*", "Accept-Encoding": "identity"})
            with connection.getresponse() as answer:
                if answer.status in _REDIRECTING and (location := answer.headers["Location"]):
                    return str(location)
                if answer.status in _PERHAPS_LATER:
                    raise _Unsteady(f"{url.hostname} answered {answer.status}")
                if answer.status != 200:
                    reason = f"{url.hostname} answered {answer.status}."
                    raise RejectedImage("http_status", reason, "Check the address.")
                data = self._read(answer)
            if connection.broken_off:
                raise _Unsteady(f"{url.hostname}: no time was left")
            return data
        except ssl.SSLCertVerificationError as error:
            reason = f"The certificate of {url.hostname} is not valid: {error.verify_message}."
            raise RejectedImage("unreachable", reason, "Use a server with a valid certificate.") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Unsteady(f"{url.hostname}: {error or type(error).__name__}") from None
        finally:
            watch.cancel()
            connection.close()

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        parts: list[bytes] = []
        size, most = 0, self._limits.max_bytes
        declared = answer.headers.get("Content-Length", "")
        while size <= most and not (declared.isdecimal() and int(declared) > most):
            chunk = answer.read(_CHUNK)
            if not chunk:
                if declared.isdecimal() and size < int(declared):
                    raise _Unsteady(f"{size} of {declared} bytes came")
                return b"".join(parts)
            parts.append(chunk)
            size += len(chunk)
        raise RejectedImage(
            "file_too_large", f"It has more than {most} bytes.", "Give a smaller file, or raise GRAFT_MAX_FILE_BYTES."
        )

    def _resolve(self, url: SplitResult) -> list[str]:
        """The host's addresses, if every one of them may be asked."""
        assert url.hostname is not None
        try:
            found = socket.getaddrinfo(_ascii(url.hostname), url.port or 443, type=socket.SOCK_STREAM)
        except OSError as error:
            raise _Unsteady(f"{url.hostname} has no address ({error.strerror})") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._allowed.permits(url.hostname, ip_address(address)):
                raise RejectedImage(
                    "forbidden_address",
                    f"{url.hostname} is at {address}, which is no public address.",
                    "Give a public address; the operator may allow others in GRAFT_IMPORT_HOSTS.",
                )
        return addresses


class _Pinned(http.client.HTTPSConnection):
    """A connection to the address that was checked, with the name that was asked for."""

    def __init__(self, url: SplitResult, addresses: list[str], tls: ssl.SSLContext) -> None:
        assert url.hostname is not None
        super().__init__(_ascii(url.hostname), url.port or 443, context=tls)
        self._addresses = addresses
        self._tls = tls
        self._wire: socket.socket | None = None  # `sock` is forgotten once an answer begins that ends with it
        self.broken_off = False

    def connect(self) -> None:
        for last, address in enumerate(self._addresses, start=1 - len(self._addresses)):
            try:
                plain = socket.create_connection((address, self.port), _CONNECT_SECONDS)
                break
            except OSError:
                if last == 0:
                    raise
        plain.settimeout(_SILENT_SECONDS)
        # The handshake apart, so that it can be broken off too.
        wrapped = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = self._wire = wrapped
        if self.broken_off:
            raise TimeoutError("no time was left")
        wrapped.do_handshake()

    def break_off(self) -> None:
        self.broken_off = True
        if (wire := self._wire) is not None:
            with suppress(OSError):
                socket.socket.shutdown(wire, socket.SHUT_RDWR)  # beneath TLS, which another thread is busy with


def check_url(url: str) -> SplitResult:
    """The parts of an https address. Raises `RejectedImage` (`bad_url`)."""
    try:
        if not url.isprintable() or " " in url or len(url) > _MAX_URL:
            raise ValueError(f"it has white space, or more than {_MAX_URL} characters")
        parts = urlsplit(url)
        if parts.scheme != "https":
            raise ValueError(f"its scheme is {parts.scheme[:20]!r}, not https")
        if not parts.hostname or parts.port == 0:
            raise ValueError("it names no host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("it holds a name or a password")
        _ascii(parts.hostname)
    except (ValueError, UnicodeError) as error:
        reason = f"It is no address that is fetched here: {error}."
        raise RejectedImage("bad_url", reason, "Give https://host/path.") from None
    return parts


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode()


def _target(url: SplitResult) -> str:
    query = f"?{url.query}" if url.query else ""
    target = f"{url.path or '/'}{query}"
    return "".join(one if one.isascii() else "".join(f"%{byte:02X}" for byte in one.encode()) for one in target)
