"""Read an address that a caller named, before anything is asked of it."""

from urllib.parse import SplitResult, urlsplit

from app.core.outbound.errors import OutboundError

_MAX_URL = 2048


def check_url(url: str) -> SplitResult:
    """Return the parts of an https address. Raises `OutboundError` (`bad_url`)."""
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
        ascii_host(parts.hostname)
    except (ValueError, UnicodeError) as error:
        reason = f"It is no address that is fetched here: {error}."
        raise OutboundError("bad_url", reason, "Give https://host/path.") from None
    return parts


def ascii_host(host: str) -> str:
    """Return the host's name as DNS and TLS have it."""
    return host if host.isascii() else host.encode("idna").decode()


def request_target(url: SplitResult) -> str:
    """Return what stands in the request's first line: path and query, in ASCII."""
    query = f"?{url.query}" if url.query else ""
    target = f"{url.path or '/'}{query}"
    return "".join(one if one.isascii() else "".join(f"%{byte:02X}" for byte in one.encode()) for one in target)
