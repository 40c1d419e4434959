"""The calls of a resumable upload (tus), one by one."""

import base64
import hashlib
from typing import Any

from tests.support.calls import Caller
from tests.support.images import folder_zip

ARCHIVE = folder_zip({"ants": 5, "bees": 5})
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
TUS = {"Tus-Resumable": "1.0.0"}
THIRD = len(ARCHIVE) // 3


def metadata(**given: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in given.items())


def begin(caller: Caller, length: int = len(ARCHIVE), headers: dict[str, str] | None = None, **given: str) -> Any:
    sent = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(**given)}
    return caller.post("/v1/uploads", headers=sent | (headers or {}))


def send(caller: Caller, address: str, offset: int, data: bytes, **headers: str) -> Any:
    sent = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return caller.patch(address, headers=sent | {k.replace("_", "-"): v for k, v in headers.items()}, content=data)


def offset(caller: Caller, address: str) -> int:
    answer = caller("HEAD", address, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])
