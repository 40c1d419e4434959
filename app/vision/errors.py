"""These errors are what training and answering raise; each message says what was wrong and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class VisionError(Exception):
    """Is the base of everything that this package raises on purpose."""


class UnknownBackbone(VisionError):
    """Says that the catalogue does not hold a backbone of that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        near = difflib.get_close_matches(name.lower(), self.known, n=1, cutoff=0.6)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"There is no backbone {name!r}.{guess} Known ones: {', '.join(self.known)}.")


class WeightsUnavailable(VisionError):
    """The pretrained weights of a backbone can neither be found nor downloaded, or the file is not what it should be.

    Attributes: `backbone` (its name), `file_name` (as the file must be called), `url` (where it is published, empty
    for a backbone that ships inside the package), `searched` (the folders looked in), `reason`.
    """

    def __init__(self, backbone: str, file_name: str, url: str, searched: Iterable[Path], reason: str) -> None:
        self.backbone = backbone
        self.file_name = file_name
        self.url = url
        self.searched = tuple(searched)
        self.reason = reason
        source = f" It is published at {url}." if url else ""
        looked = ", ".join(str(folder) for folder in self.searched) or "nowhere"
        super().__init__(
            f"The weights of {backbone} are not available: {reason}. Put {file_name} into GRAFT_WEIGHTS_DIR"
            f" (looked in: {looked}).{source}"
        )


class InvalidConfig(VisionError):
    """Says that a training configuration cannot be run; `field` is the name of the field to change."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


class InvalidData(VisionError):
    """Says that images or labels cannot be trained on or classified."""


class Diverged(VisionError):
    """The run came apart in `epoch` (1-based) at `step` (1-based, within the epoch).

    `checkpoint` is the epoch and step of the last good checkpoint, as the observer was told; None if there is none.
    """

    def __init__(self, epoch: int, step: int, what: str, checkpoint: tuple[int, int] | None = None) -> None:
        self.epoch = epoch
        self.step = step
        self.checkpoint = checkpoint
        kept = f"epoch {checkpoint[0]}, step {checkpoint[1]}" if checkpoint else "none was written yet"
        super().__init__(
            f"{what} in epoch {epoch}, step {step}: lower the learning rate. The last good checkpoint: {kept}."
        )


class OutOfMemory(VisionError):
    """A batch of `batch_size` images did not fit into the memory of the device; one of `fits` would, where known."""

    def __init__(self, batch_size: int | str, fits: int | None = None) -> None:
        self.batch_size = batch_size
        self.fits = fits
        remedy = (
            "lower batch_size or input_size, or choose a smaller backbone."
            if fits is None
            else f"{fits} would; lower batch_size to {fits}, and raise accumulate for steps as large as before."
        )
        super().__init__(f"A batch of {batch_size} images does not fit into memory: {remedy}")


class RankLost(VisionError):
    """Another process of a run that several share is gone, and left no word why."""

    def __init__(self, rank: int) -> None:
        super().__init__(
            f"Process {rank} of the run has lost another one, which was killed or whose machine is away: look at the"
            " memory of its machine, and go on from the last checkpoint."
        )


class DamagedArtefact(VisionError):
    """Says that a model or checkpoint file is cut short, altered, or not one of ours."""


class Stopped(Exception):
    """Says that a run was asked to stop and did; that is no failure, hence no VisionError.

    `checkpoint_written` says whether a checkpoint was reported: there is none to write before the first step.
    """

    def __init__(self, *, checkpoint_written: bool) -> None:
        self.checkpoint_written = checkpoint_written
        super().__init__("The run was stopped" + (" after writing a checkpoint." if checkpoint_written else "."))
