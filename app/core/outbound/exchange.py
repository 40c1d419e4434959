"""Send one request to an address that a caller named: server-side request forgery is what this guards against.

The host is resolved once, all its addresses are checked, and the connection goes to the very address that was checked
(so a name that resolves anew changes nothing), with the host's own name in TLS and in `Host`. Nothing of this process's
proxy settings is used, and no redirect is followed.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult

from app.core.outbound.addresses import Allowed
from app.core.outbound.errors import OutboundError, Unsteady
from app.core.outbound.urls import ascii_host, request_target

_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 20.0  # without a byte
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """A body has at most so many bytes, and takes at most so many seconds from the first look to the last byte.

    `setting` is the operator's that raises `max_bytes`, for the remedy.
    """

    max_bytes: int
    seconds: float = 60.0
    setting: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The server answered with this. `body` is empty unless the status is 2xx; `location` is where a redirect
    points."""

    status: int
    location: str | None
    body: bytes


class Exchange:
    """Sends requests to the addresses that are `allowed`. Safe to use from several threads at once."""

    def __init__(self, allowed: Allowed, bounds: Bounds) -> None:
        self._allowed = allowed
        self.bounds = bounds
        self._tls = ssl.create_default_context()

    def send(
        self, method: str, url: SplitResult, headers: Mapping[str, str], deadline: float, body: bytes | None = None
    ) -> Answer:
        """Send one request and return its answer; it is broken off at the `deadline` of the monotonic clock.

        `url` is from `check_url`. Raises `OutboundError` (`forbidden_address`, `unreachable` for a bad certificate,
        `file_too_large`), and `Unsteady` for what may go well the next time.
        """
        connection = _Pinned(url, self._resolve(url), self._tls)
        # Whatever a server does to keep a connection busy, it ends then: each read by itself may be quick.
        watch = threading.Timer(max(0.0, deadline - time.monotonic()), connection.break_off)
        watch.daemon = True
        watch.start()
        try:
            connection.request(method, request_target(url), body, {**headers, "Accept-Encoding": "identity"})
            with connection.getresponse() as response:
                succeeded = 200 <= response.status < 300
                answer = Answer(
                    response.status, response.headers["Location"], self._read(response) if succeeded else b""
                )
            if connection.broken_off:
                raise Unsteady(f"{url.hostname}: no time was left")
            return answer
        except ssl.SSLCertVerificationError as error:
            reason = f"The certificate of {url.hostname} is not valid: {error.verify_message}."
            raise OutboundError("unreachable", reason, "Use a server with a valid certificate.") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unsteady(f"{url.hostname}: {error or type(error).__name__}") from None
        finally:
            watch.cancel()
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        parts: list[bytes] = []
        size, most = 0, self.bounds.max_bytes
        declared = response.headers.get("Content-Length", "")
        while size <= most and not (declared.isdecimal() and int(declared) > most):
            chunk = response.read(_CHUNK)
            if not chunk:
                if declared.isdecimal() and size < int(declared):
                    raise Unsteady(f"{size} of {declared} bytes came")
                return b"".join(parts)
            parts.append(chunk)
            size += len(chunk)
        remedy = f"Give a smaller file, or raise {self.bounds.setting}." if self.bounds.setting else "Send less."
        raise OutboundError("file_too_large", f"It has more than {most} bytes.", remedy)

    def _resolve(self, url: SplitResult) -> list[str]:
        """Return the host's addresses, if every one of them may be asked."""
        assert url.hostname is not None
        try:
            found = socket.getaddrinfo(ascii_host(url.hostname), url.port or 443, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unsteady(f"{url.hostname} has no address ({error.strerror})") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._allowed.permits(url.hostname, ip_address(address)):
                others = f"; the operator may allow others in {self._allowed.setting}" if self._allowed.setting else ""
                raise OutboundError(
                    "forbidden_address",
                    f"{url.hostname} is at {address}, which is no public address.",
                    f"Give a public address{others}.",
                )
        return addresses


class _Pinned(http.client.HTTPSConnection):
    """This connection goes to the address that was checked, with the name that was asked for."""

    def __init__(self, url: SplitResult, addresses: list[str], tls: ssl.SSLContext) -> None:
        assert url.hostname is not None
        super().__init__(ascii_host(url.hostname), url.port or 443, context=tls)
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
