"""This module writes a version as a zip that can be uploaded again: class folders below split folders, and
`labels.jsonl`."""

import json
import re
import zipfile
from collections.abc import Iterator

from app.datasets.manifest import Manifest, ManifestImage
from app.storage import BlobStore

_LABELS = "labels.jsonl"
_NOT_PLAIN = re.compile(r"[^\w .-]+")
_PNG = b"\x89PNG"


def version_zip(manifest: Manifest, store: BlobStore) -> Iterator[bytes]:
    """Return the zip in chunks, of which no more than one image is in memory. The same version gives the same bytes.

    Each image stands under its label's folder as its SHA-256; `labels.jsonl`, the last member, has label, split and
    metadata of each as the version has them. Raises as `BlobStore.read` does.
    """
    sink = _Sink()
    lines = []
    with zipfile.ZipFile(sink, "w") as archive:
        for item in manifest.items:
            data = store.read(item.sha256)
            path = _path(item, data)
            lines.append(json.dumps({"path": path, "label": item.label, "split": item.split, **item.metadata}))
            archive.writestr(zipfile.ZipInfo(path), data)  # which is stored: images are compressed already
            yield sink.taken()
        archive.writestr(zipfile.ZipInfo(_LABELS), "".join(f"{line}\n" for line in lines), zipfile.ZIP_DEFLATED)
    yield sink.taken()


def _path(item: ManifestImage, data: bytes) -> str:
    folder = _NOT_PLAIN.sub("_", item.label)[:60].strip(" .") or "_"
    return f"{item.split}/{folder}/{item.sha256}.{'png' if data.startswith(_PNG) else 'jpg'}"


class _Sink:
    """`zipfile` writes to this; it cannot be sought, so zipfile only ever appends."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...
    def close(self) -> None: ...

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
