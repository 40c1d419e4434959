"""Keeps the last two checkpoints of a run and the best in a folder, each named by where the run was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.vision.errors import DamagedArtefact

LAST = 2  # so that there is one to fall back to when the newest is damaged
BEST = "-best"


class CheckpointFolder:
    """`epoch-00003-step-000012.safetensors`, with `-best` at the end of the stem where it is the best so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, path: Path, epoch: int, step: int, best: bool) -> None:
        """Take the file over, and let go of those that are neither among the last two nor the newest best one."""
        from app.vision.artefacts.tensorfile import move_durably

        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"epoch-{epoch:05}-step-{step:06}{BEST if best else ''}.safetensors"
        move_durably(path, self.folder / name)
        paths = self.newest_first()
        kept = paths[:LAST] + [path for path in paths if path.stem.endswith(BEST)][:1]
        for old in paths:
            if old not in kept:
                old.unlink()

    def newest_first(self) -> list[Path]:
        """Return the kept checkpoints."""
        # By the names alone: they sort as the run went, whatever a copy has done to the files' times.
        return sorted(self.folder.glob("epoch-*.safetensors"), reverse=True)

    def newest_whole(self, passed_over: Callable[[Path, DamagedArtefact], object]) -> Path:
        """Return the newest checkpoint that is undamaged; `passed_over` hears of those before it.

        Raises DamagedArtefact if there is none.
        """
        from app.vision.artefacts.tensorfile import read_document
        from app.vision.training.checkpoint import KIND

        for path in self.newest_first():
            try:
                read_document(path, KIND)
            except DamagedArtefact as error:
                passed_over(path, error)
            else:
                return path
        raise DamagedArtefact(f"{self.folder} holds no checkpoint that is whole.")

    def clear(self) -> None:
        """Remove them all, and the folder if nothing else lies in it."""
        for path in self.newest_first():
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
