"""One safetensors file that carries tensors and a JSON document, written so that it is whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.vision.errors import DamagedArtefact

VERSION = 1
ENTRY = "graftwork"  # one metadata entry holds all: safetensors writes several in an order that varies from run to run


def write_tensors(path: Path, kind: str, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    """Write to a neighbour, fsync, rename over `path`, fsync the folder; `kind` is what `read_tensors` will ask for."""
    metadata = {ENTRY: json.dumps({"format": kind, "version": VERSION, "document": document})}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the document; raises DamagedArtefact for anything `write_tensors` did not write."""
    try:
        with safe_open(path, framework="pt") as file:
            entry = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
            if entry.get("format") != kind:
                raise DamagedArtefact(f"{path.name} is not a {kind} file.")
            if entry.get("version") != VERSION:
                raise DamagedArtefact(f"{path.name} has format version {entry.get('version')}, not {VERSION}.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            document: dict[str, Any] = entry["document"]
    except (SafetensorError, OSError, AttributeError, KeyError, ValueError) as error:
        raise DamagedArtefact(f"{path.name} cannot be read as a {kind} file: {error}") from error
    return tensors, document
