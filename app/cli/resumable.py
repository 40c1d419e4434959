"""Send a large file as a resumable upload (tus 1.0), so that a broken connection costs only a part of it."""

import base64
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import httpx2

from app.cli.client import Client, refusal
from app.cli.fields import without_none

_TUS = {"Tus-Resumable": "1.0.0"}
_RETRIED_STATUSES = (409, 423)  # the service has not noticed yet that the previous connection is gone
_MOST_FAILURES = 10  # in a row
_CHUNK_BYTES = 1 << 20


def send(api: Client, file: BinaryIO, size: int, sha256: str, options: dict[str, Any], pause: float = 1.0) -> Any:
    """Upload `file` and return the dataset. `pause` is in seconds, and grows with each failure in a row."""
    metadata = {name: str(value) for name, value in without_none({**options, "sha256": sha256}).items()}
    header = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in metadata.items())
    begun = api.request("POST", "/v1/uploads", headers={**_TUS, "Upload-Length": str(size), "Upload-Metadata": header})
    upload = api.located(_checked(begun))

    offset, failures = 0, 0
    while True:
        try:
            answer = _send_from(api, file, upload, offset)
            if not answer.is_error:
                return api.get(api.located(answer))
            if answer.status_code not in _RETRIED_STATUSES:
                raise refusal(answer)
        except httpx2.TransportError as error:
            if failures >= _MOST_FAILURES:
                raise api.no_service(error) from None
        failures += 1
        time.sleep(pause * min(failures, 10))
        try:
            known = _checked(api.request("HEAD", upload, headers=_TUS))
        except httpx2.TransportError:
            continue
        if "location" in known.headers:  # the whole file arrived, and the response was lost
            return api.get(api.located(known))
        if int(known.headers["upload-offset"]) > offset:
            offset, failures = int(known.headers["upload-offset"]), 0


def _send_from(api: Client, file: BinaryIO, upload: str, offset: int) -> httpx2.Response:
    def chunks() -> Iterator[bytes]:
        file.seek(offset)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk

    headers = {**_TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return api.request("PATCH", upload, content=chunks(), headers=headers)


def _checked(answer: httpx2.Response) -> httpx2.Response:
    if answer.is_error:
        raise refusal(answer)
    return answer
