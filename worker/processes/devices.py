"""List what this machine computes on: its GPUs, or its processor, with their memory. Needs no torch."""

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

_QUERY = ["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
_PATIENCE = 10.0  # seconds


def devices(proc: Path = Path("/proc")) -> list[dict[str, Any]]:
    """Return each GPU by `nvidia-smi`; without one the processor. Memory is in bytes, or None."""
    return _gpus() or [_processor(proc)]


def visible_device(number: int, visible: str | None) -> str:
    """Return the GPU for slot `number` as CUDA_VISIBLE_DEVICES names it: one of those that the worker itself may see.

    `visible` is the worker's own CUDA_VISIBLE_DEVICES: numbers, UUIDs or MIG names, separated by commas. A slot for
    which it has no GPU gets none, and not one that was kept from the worker.
    """
    if visible is None:
        return str(number)
    names = [name.strip() for name in visible.split(",")]
    return names[number] if number < len(names) else ""


def _gpus() -> list[dict[str, Any]]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        answer = subprocess.run([command, *_QUERY], capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):  # installed, and no driver behind it
        return []
    return [_gpu(line) for line in answer.stdout.splitlines() if line.count(",") == 2]


def _gpu(line: str) -> dict[str, Any]:
    name, total, free = (part.strip() for part in line.split(","))
    mebibytes = {"memory_total": total, "memory_free": free}  # a part of a GPU (MIG) says [N/A]
    sizes = {key: int(value) * 2**20 if value.isdecimal() else None for key, value in mebibytes.items()}
    return {"name": name, **sizes}


def _processor(proc: Path) -> dict[str, Any]:
    model = re.search(r"^model name\s*:\s*(.+)$", _read(proc / "cpuinfo"), re.MULTILINE)
    sizes = dict(re.findall(r"^(MemTotal|MemAvailable):\s*(\d+) kB$", _read(proc / "meminfo"), re.MULTILINE))
    return {
        "name": model[1] if model else platform.machine(),
        "memory_total": int(sizes["MemTotal"]) * 1024 if "MemTotal" in sizes else None,
        "memory_free": int(sizes["MemAvailable"]) * 1024 if "MemAvailable" in sizes else None,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
