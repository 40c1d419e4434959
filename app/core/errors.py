"""This module has the errors that a caller can act on. Each carries its HTTP status and a stable code;
`app.api.problems` renders them.

Every message says what was wrong, with the value, and what to do about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """This names one bad field of a request, or one bad file of an upload.

    `field` is a dotted path (`head.dropout`), a query parameter, a header, or a file's name in an archive.
    """

    field: str
    message: str
    code: str = "invalid"

    def as_dict(self) -> dict[str, str]:
        return {"field": self.field, "code": self.code, "message": self.message}


class GraftError(Exception):
    """Every error that may reach a caller derives from this one.

    `detail` is one or two sentences for a person; `code` is stable and for programs; `retry_after` is in seconds.
    """

    status = 500
    title = "Internal error"
    code = "internal"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = tuple(errors)
        self.retry_after = retry_after


class Invalid(GraftError):
    """422: the request was understood and is wrong."""

    status, title, code = 422, "Invalid request", "invalid"


class Malformed(GraftError):
    """400: the request could not be read at all."""

    status, title, code = 400, "Malformed request", "malformed"


class Unauthenticated(GraftError):
    """401: the request has no key, or one that is not valid."""

    status, title, code = 401, "Authentication required", "unauthenticated"


class Forbidden(GraftError):
    """403: the key is valid and may not do this."""

    status, title, code = 403, "Not allowed", "forbidden"


class NotFound(GraftError):
    """404: there is no such thing in this workspace."""

    status, title, code = 404, "Not found", "not_found"


class Conflict(GraftError):
    """409: the thing is in a state that does not allow this."""

    status, title, code = 409, "Conflict", "conflict"


class PreconditionFailed(GraftError):
    """412: the request speaks another version of its protocol."""

    status, title, code = 412, "Precondition failed", "precondition_failed"


class TooLarge(GraftError):
    """413: the body has more bytes than the limit."""

    status, title, code = 413, "Too large", "too_large"


class UnsupportedMedia(GraftError):
    """415: the body is of a kind that this route does not read."""

    status, title, code = 415, "Unsupported media type", "unsupported_media_type"


class Locked(GraftError):
    """423: somebody else is writing to it at this moment."""

    status, title, code = 423, "Locked", "locked"


class ChecksumMismatch(GraftError):
    """460: the bytes that came do not have the hash they were sent with (tus 1.0, checksum extension)."""

    status, title, code = 460, "Checksum mismatch", "checksum_mismatch"


class TooMany(GraftError):
    """429: the caller asks for more at once than a limit allows."""

    status, title, code = 429, "Too many requests", "too_many"


class Unavailable(GraftError):
    """503: something this service needs is away; trying again later may work."""

    status, title, code = 503, "Unavailable", "unavailable"


class StorageFull(Unavailable):
    """507: a disk of this service has no room; it works again when there is some."""

    status, title, code = 507, "Insufficient storage", "storage_full"
