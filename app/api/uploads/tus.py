"""The tus 1.0 protocol of resumable uploads (https://tus.io/protocols/resumable-upload): its headers."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import own_path, problem
from app.core.errors import ChecksumMismatch, FieldError, Invalid, PreconditionFailed, UnsupportedMedia
from app.datasets.schemas import UploadOptions

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,termination,expiration"
# Name and bytes. Every server has to know SHA-1, says the protocol.
CHECKSUMS = {"sha1": 20, "sha256": 32}
CONTENT_TYPE = "application/offset+octet-stream"
PATH = "/v1/uploads"
OVERRIDE = "X-HTTP-Method-Override"

_OPTIONS = frozenset(UploadOptions.model_fields)
# Other clients send these keys; they are ignored.
_IGNORED = frozenset({"filetype", "type", "contentType", "relativePath"})
_SHA256 = re.compile(r"[0-9a-f]{64}")


class TusHeaders:
    """ASGI middleware that adds the protocol's version to every response of its routes, errors included.

    It lets a POST stand for PATCH or DELETE by `X-HTTP-Method-Override`, as the protocol requires. The server frames
    the response by the scope that it made, so that scope stays as it is: a proxy would take the body of a response to
    HEAD for the response to the next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not f"{own_path(scope)}/".startswith(f"{PATH}/"):
            await self._app(scope, receive, send)
            return
        if override := Headers(scope=scope).get(OVERRIDE):
            if scope["method"] != "POST" or override.upper() not in ("PATCH", "DELETE"):
                await problem(Request(scope), _bad_override(scope["method"], override))(scope, receive, send)
                return
            scope = {**scope, "method": override.upper()}

        async def versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = headers["Tus-Version"] = VERSION
                headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, versioned)


def _bad_override(method: str, override: str) -> Invalid:
    how = "Send PATCH or DELETE in it with a POST, or leave the header out."
    detail = f"{OVERRIDE} is {override[:40]!r} on a {method}. {how}"
    return Invalid(detail, code="bad_override", errors=[FieldError(OVERRIDE, detail, "bad_override")])


def check_version(
    version: Annotated[str | None, Header(alias="Tus-Resumable", description=f"`{VERSION}`.")] = None,
) -> None:
    """Refuse a request for another version of the protocol. Every route except OPTIONS depends on this."""
    if version != VERSION:
        shown = "missing" if version is None else f"{version[:40]!r}"
        detail = f"The header Tus-Resumable is {shown}. Send 'Tus-Resumable: {VERSION}'."
        raise PreconditionFailed(
            detail, code="tus_version", errors=[FieldError("Tus-Resumable", detail, "tus_version")]
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """The content of `Upload-Metadata`: the dataset's options, the file's name, and the hash it must have."""

    options: UploadOptions
    filename: str | None
    sha256: str | None


def read_metadata(header: str | None) -> Metadata:
    """Parse `key base64,key base64`. Raises `Invalid` and `RequestValidationError`, naming the key."""
    given = dict(_pairs(header or ""))
    sha256 = given.get("sha256")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise _bad("sha256", f"{sha256[:80]!r} is not a SHA-256 of 64 lower-case hexadecimal digits")
    unknown = given.keys() - _OPTIONS - _IGNORED - {"filename", "sha256"}
    if unknown:
        known = ", ".join(sorted({*_OPTIONS, "filename", "sha256"}))
        raise _bad(min(unknown), f"there is no such key; use {known}")
    try:
        options = UploadOptions.model_validate({key: given[key] for key in _OPTIONS & given.keys()})
    except ValidationError as error:
        raise RequestValidationError([_located(one) for one in error.errors()]) from None
    return Metadata(options, given.get("filename"), sha256)


def _pairs(header: str) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            text = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            raise _bad(key, f"{value[:60]!r} is not UTF-8 text in Base64") from None
        if "\0" in text:
            raise _bad(key, "its value contains a NUL character")
        if key in pairs:
            raise _bad(key, "it occurs twice")
        pairs[key] = text
    return pairs


def _bad(key: str, why: str) -> Invalid:
    detail = f"Upload-Metadata, {key[:60]}: {why}."
    return Invalid(detail, errors=[FieldError(f"Upload-Metadata.{key[:60]}", detail)])


def _located(error: Any) -> Any:
    return {**error, "loc": ("header", "Upload-Metadata", *error["loc"])}


class Checksum:
    """The hash that a request's body must have, and the hash of the bytes so far."""

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self.algorithm = algorithm
        self._expected = expected
        self._digest = hashlib.new(algorithm, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)

    def check(self) -> None:
        if self._digest.digest() != self._expected:
            found = f"{self.algorithm} {base64.b64encode(self._digest.digest()).decode()}"
            detail = f"The body has the checksum {found!r}, not the one in Upload-Checksum. Send the body again."
            raise ChecksumMismatch(detail, errors=[FieldError("Upload-Checksum", detail, "checksum_mismatch")])


def read_checksum(header: str | None) -> Checksum | None:
    """Return the checksum that the header `Upload-Checksum` names, or None without it. Raises `Invalid`."""
    if header is None:
        return None
    algorithm, _, value = header.partition(" ")
    try:
        expected = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        expected = b""
    if len(expected) != CHECKSUMS.get(algorithm):
        known = " or ".join(CHECKSUMS)
        detail = f"Upload-Checksum {header[:80]!r}: send {known} and that hash of the body, in Base64."
        raise Invalid(detail, code="bad_checksum", errors=[FieldError("Upload-Checksum", detail, "bad_checksum")])
    return Checksum(algorithm, expected)


def check_content_type(header: str | None) -> None:
    if (header or "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        detail = f"The Content-Type is {header or 'missing'}. Send 'Content-Type: {CONTENT_TYPE}'."
        raise UnsupportedMedia(detail, errors=[FieldError("Content-Type", detail, "unsupported_media_type")])


def http_date(time: datetime) -> str:
    """Return `time` in the format of `Upload-Expires` (RFC 9110, 5.6.7)."""
    return format_datetime(time, usegmt=True)
