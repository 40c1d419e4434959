"""Finds how much memory there is for a batch, how much one takes, and whether an error means too little of it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

CHUNK = 32  # images that a pass without gradients takes at a time: memory does not grow with the call
MARGIN = 0.8  # of what is free: the next allocations do not fall as neatly, and others use this machine, too
PROCESS = Path("/proc/self")
GROUPS = Path("/sys/fs/cgroup")


def is_exhaustion(error: BaseException) -> bool:
    """Return whether an error says that memory has run out, in one of the ways in which torch and its libraries do."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = (
        "can't allocate memory",
        "could not create a memory",
        # oneDNN's words where it cannot map memory for the code or the workspace of a convolution
        "could not create a primitive",
        "could not execute a primitive",
        "std::bad_alloc",
        "CUBLAS_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, RuntimeError) and any(text in str(error) for text in said)


def largest_batch(
    attempt: Callable[[int], None],
    device: torch.device,
    most: int,
    later: int = 0,
    *,
    tries: bool = True,
    gauge: Gauge | None = None,
) -> int:
    """Return the largest power of two, up to `most`, that can be expected to fit; at least 1.

    `attempt` runs forward and backward with so many samples, and may fail for want of memory. Two small batches tell
    what a sample takes (activations grow with the batch, weights and their gradients do not), beside `later` bytes that
    something else will need. Where `tries`, the answer is then tried in earnest, and halved until it passes.
    """
    if most < 2:  # a batch norm cannot learn from a single sample
        return 1
    gauge = gauge or Gauge()
    room, before = gauge.available(device), gauge.used(device)
    sizes = [size for size in (2, 8) if size <= most]
    try:
        attempt(2)  # what the first pass allocates for good: gradients, workspaces
        taken = [gauge.peak(attempt, size, device) - before for size in sizes]
    except Exception as error:
        if not is_exhaustion(error):
            raise
        return 1
    batch = _power_of_two(most)
    if len(sizes) == 2 and taken[1] > taken[0]:
        each = (taken[1] - taken[0]) / (sizes[1] - sizes[0])
        fixed = max(taken[0] - each * sizes[0], 0.0)
        batch = min(batch, _power_of_two(max(int((room * MARGIN - fixed - later) / each), 1)))
    while tries and batch > 1:
        try:
            attempt(batch)
            return batch
        except Exception as error:
            if not is_exhaustion(error):
                raise
        batch //= 2
    return batch


def available(device: torch.device) -> int:
    """Return the bytes that this process may still allocate on the device, as far as anything limits it."""
    return Gauge().available(device)


@dataclass(frozen=True)
class Gauge:
    """Tells what memory a process has and takes, from its folder in /proc and from the control groups' root."""

    process: Path = PROCESS
    groups: Path = GROUPS

    def available(self, device: torch.device) -> int:
        """Return the bytes that may still be allocated on the device, as far as anything limits it."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info()
            return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        limits = [_free_in_machine(), *self._free_in_groups()]
        for kind, field in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                limits.append(soft - _kilobytes(self.process / "status", field))
        return max(min(limits), 0)

    def used(self, device: torch.device) -> int:
        """Return the bytes that this process holds now."""
        if device.type == "cuda":
            return torch.cuda.memory_allocated()
        return _kilobytes(self.process / "status", "VmRSS")

    def peak(self, attempt: Callable[[int], None], size: int, device: torch.device) -> int:
        """Return the bytes that this process holds when an attempt takes most."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            attempt(size)
            return torch.cuda.max_memory_allocated()
        with suppress(OSError):  # resets the peak; where that is not allowed, that of the whole process has to serve
            (self.process / "clear_refs").write_text("5")
        attempt(size)
        return _kilobytes(self.process / "status", "VmHWM")

    def _free_in_groups(self) -> list[int]:
        """Return what the control groups of this process leave free, of version 2 and of version 1."""
        found = []
        with suppress(OSError):
            for line in (self.process / "cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if not controllers:
                    for folder in self._and_parents(self.groups / path.lstrip("/")):
                        found += _free(folder, "memory.max", "memory.current", "inactive_file")
                elif "memory" in controllers.split(","):
                    for folder in self._and_parents(self.groups / "memory" / path.lstrip("/")):
                        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                        found += _free(folder, *names)
        return found

    def _and_parents(self, folder: Path) -> list[Path]:
        """Return the folder and those above it: each may set a limit, and a container shows only the root."""
        return [one for one in (folder, *folder.parents) if one.is_relative_to(self.groups)]


def _kilobytes(path: Path, field: str) -> int:
    """Return bytes, from a line like `VmRSS:  1234 kB`; 0 where there is no such file."""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def _free_in_machine() -> int:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable") or 2**62


def _free(folder: Path, limit: str, usage: str, reclaimable: str) -> list[int]:
    try:
        most = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
        rows = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = next((int(row[1]) for row in rows if row[0] == reclaimable), 0)
    except (OSError, ValueError):  # no such limit, or "max"
        return []
    return [most - used + cached]


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)
