"""Writes tensors, a JSON document and a SHA-256 of both as one safetensors file, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.vision.errors import DamagedArtefact

VERSION = 2
UNSEALED = 1  # files of this version bear no digest; they are still read
ENTRY = "graftwork"  # one metadata entry holds all: safetensors writes several in an order that varies from run to run
BLANK = "0" * 64  # what the digest's own place holds while the digest is taken
CHUNK_BYTES = 1 << 20

# safetensors writes the length of its header (8 bytes), then the header, metadata first. So the digest of every file
# stands at one place.
_BEFORE_DIGEST = b'{"__metadata__":{"graftwork":"{\\"sha256\\": \\"'
_DIGEST_AT = 8 + len(_BEFORE_DIGEST)


def write_tensors(path: Path, kind: str, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    """Write to a neighbour, fsync, rename over `path`, fsync the folder; `kind` is what `read_tensors` will ask for."""
    entry = {"sha256": BLANK, "format": kind, "version": VERSION, "document": document}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        metadata = {ENTRY: json.dumps(entry)}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        with temporary.open("r+b") as file:
            digest = _digest(file)
            file.seek(_DIGEST_AT)
            file.write(digest.encode())
            file.flush()
            os.fsync(file.fileno())
        move_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_durably(source: Path, target: Path) -> None:
    """Rename a file that is on the disk already, and have the new name on the disk too when this returns."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the document.

    Raises DamagedArtefact for anything `write_tensors` did not write.
    """
    document = read_document(path, kind)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, document  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise DamagedArtefact(f"{path.name} cannot be read as a {kind} file: {error}") from error


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """Return the document alone; memory does not grow with the tensors. Raises DamagedArtefact."""
    try:
        sealed = _check_digest(path)
        with safe_open(path, framework="pt") as file:
            entry = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
        if entry.get("format") != kind:
            raise DamagedArtefact(f"{path.name} is not a {kind} file.")
        if entry.get("version") != (VERSION if sealed else UNSEALED):
            raise DamagedArtefact(f"{path.name} has format version {entry.get('version')}, not {VERSION}.")
        document: dict[str, Any] = entry["document"]
    except (SafetensorError, OSError, AttributeError, KeyError, ValueError) as error:
        raise DamagedArtefact(f"{path.name} cannot be read as a {kind} file: {error}") from error
    return document


def _check_digest(path: Path) -> bool:
    """Return whether the file bears a digest. Raises DamagedArtefact where it is not the digest of these bytes.

    A damaged byte cannot pass a file off as one without a digest: its entry would still say that it has one.
    """
    with path.open("rb") as file:
        start = file.read(_DIGEST_AT + len(BLANK))
        if start[8:_DIGEST_AT] != _BEFORE_DIGEST:
            return False
        if start[_DIGEST_AT:] != _digest(file).encode():
            raise DamagedArtefact(f"{path.name} is damaged: its bytes are not those that were written.")
    return True


def _digest(file: BinaryIO) -> str:
    """Return the SHA-256 of the file, its own digest blanked out, in lower-case hex."""
    file.seek(0)
    digest = hashlib.sha256(file.read(_DIGEST_AT) + BLANK.encode())
    file.seek(_DIGEST_AT + len(BLANK))
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
