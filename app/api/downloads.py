"""Answers that are a blob, or a file made while it is sent."""

from collections.abc import Iterator

from fastapi.responses import StreamingResponse

from app.storage import BlobStore

_CHUNK = 1 << 20


def blob_response(store: BlobStore, sha256: str, size: int, media_type: str, name: str) -> StreamingResponse:
    """The blob's bytes under a file name; memory does not grow with its size. Raises BlobMissing before the answer."""
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
