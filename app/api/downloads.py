"""Send a blob as a response, or a file that is made while it is sent."""

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import StreamingResponse

from app.storage import Blob, BlobStore

_CHUNK = 1 << 20

TableFormat = Annotated[Literal["jsonl", "csv"], Query(description="JSON lines or CSV.")]
TABLE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/jsonl": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        }
    }
}
Rows = Iterator[dict[str, Any]]


def blob_response(store: BlobStore, sha256: str, size: int, media_type: str, name: str) -> StreamingResponse:
    """Return a response that streams the blob under a file name, with the same memory for any size.

    Raises BlobMissing before the response begins.
    """
    file = store.open(sha256)

    def chunks() -> Iterator[bytes]:
        with file:
            while chunk := file.read(_CHUNK):
                yield chunk

    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{name}"',
        "ETag": f'"{sha256}"',
    }
    return StreamingResponse(chunks(), media_type=media_type, headers=headers)


def table_response(
    store: BlobStore, blob: Blob, name: str, format: TableFormat, to_csv: Callable[[Rows], Iterator[bytes]]
) -> StreamingResponse:
    """Return a response that streams a blob of JSON lines unchanged, or as CSV through `to_csv`.

    Raises BlobMissing before the response begins.
    """
    if format == "jsonl":
        return blob_response(store, blob.sha256, blob.size, "application/jsonl", f"{name}.jsonl")
    file = store.open(blob.sha256)

    def lines() -> Iterator[bytes]:
        with file:
            yield from to_csv(json.loads(line) for line in file)

    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(lines(), media_type="text/csv", headers=headers)
