"""Small disks of a test's own, where this machine lets them be mounted."""

import subprocess
from pathlib import Path

import pytest

MIB = 2**20


def mount(*options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")


def remount(disk: Path, options: str) -> None:
    mount("-o", f"remount,{options}", str(disk))
