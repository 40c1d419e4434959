"""Keep the files that engines are made from on this machine; each of them can be made again."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path


class EngineFiles:
    """The engines' files, in one folder for each model below `root`, of `budget_bytes` at most.

    The folders of the least recently used models are removed first.
    """

    def __init__(self, root: Path, budget_bytes: int) -> None:
        self._root = root
        self._budget_bytes = budget_bytes

    def get(self, artefact_sha256: str, name: str, make: Callable[[Path], None]) -> Path:
        """Return the path of a file, which `make` writes if it does not exist or was changed since."""
        folder = self._root / artefact_sha256
        path, digest = folder / name, folder / f"{name}.sha256"
        if not (path.is_file() and digest.is_file() and digest.read_text() == _sha256(path)):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{os.getpid()}.{name}"
            try:
                make(temporary)
                digest.write_text(_sha256(temporary))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        os.utime(folder)
        self._prune(keep=folder)
        return path

    def _prune(self, keep: Path) -> None:
        folders = sorted(self._root.iterdir(), key=lambda folder: folder.stat().st_mtime)
        sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
        for folder in folders:
            if sum(sizes.values()) <= self._budget_bytes:
                return
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)
                del sizes[folder]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
