"""Make checkouts of this repository at other commits, each with an environment of its own, to compare with."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stamp = Literal["run", "dev"]

HERE = Path(__file__).resolve().parents[1]
PASSED_ON = ("GRAFT_WEIGHTS_DIR", "GRAFT_WEIGHTS_MIRROR", "GRAFT_WEIGHTS_DOWNLOAD")


@dataclass(frozen=True)
class Checkout:
    """Hold one tree of this repository and the Python that runs it."""

    root: Path
    python: Path

    def module(self, name: str, *arguments: str | Path) -> list[str]:
        """Return the command line of `python -m NAME`, to be run with `root` as the working folder."""
        return [str(self.python), "-m", name, *map(str, arguments)]

    def environment(self, **more: str) -> dict[str, str]:
        """Return this process's environment with no other tree on Python's path and no settings of this machine."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "VIRTUAL_ENV") and (not name.startswith("GRAFT_") or name in PASSED_ON)
        }
        return kept | more

    def description(self) -> str:
        """Return the short hash of the commit, with a `+` where files differ; the folder where git knows none."""
        try:
            commit = _git(self.root, "rev-parse", "--short", "HEAD")
        except (OSError, subprocess.CalledProcessError):
            return str(self.root)
        return commit + ("+" if _git(self.root, "status", "--porcelain", "--untracked-files=no") else "")


def this_checkout() -> Checkout:
    """Return the tree that this file is in, with the Python that runs now."""
    return Checkout(HERE, Path(sys.executable))


def checkout_of(commit: str, stamp: Stamp, cache: Path | None = None) -> Checkout:
    """Return a checkout of that commit, made with its environment unless an earlier call has left it in the cache.

    `stamp` says what the environment holds: what the service needs ("run"), or what the tests need as well ("dev").
    Raises SystemExit where the commit is unknown or its environment cannot be made.
    """
    try:
        full = _git(HERE, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError:
        raise SystemExit(f"--commit {commit}: this repository has no such commit; fetch it, or name another.") from None
    root = (cache or _cache()) / full
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        print(f"Making a checkout of {commit} in {root}", file=sys.stderr, flush=True)
        _git(HERE, "worktree", "prune")
        _git(HERE, "worktree", "add", "--detach", "--quiet", str(root), full)
    made = Checkout(root, root / ".venv" / "bin" / "python")
    make = ["make", "--no-print-directory", f"PYTHON={sys.executable}", f".venv/{stamp}.stamp"]
    if subprocess.run(make, cwd=root, env=made.environment(), stdout=sys.stderr, check=False).returncode:
        raise SystemExit(f"the environment of {commit} cannot be made in {root}: {' '.join(make)} failed there")
    return made


def existing_checkout(root: Path) -> Checkout:
    """Return the checkout in that folder; raises SystemExit where it has no environment."""
    root = root.resolve()
    python = root / ".venv" / "bin" / "python"
    if not (root / "app").is_dir() or not python.exists():
        raise SystemExit(f"--before {root}: this is no checkout with an environment; run `make .venv/dev.stamp` there.")
    return Checkout(root, python)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--commit`, `--before` and `--cache`, one of the first two being needed."""
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--commit", help="the commit to compare with; its checkout and environment are kept for later")
    given.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout of it that has an environment already")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help=f"where checkouts are kept (default: {_cache()})")


def chosen(given: argparse.Namespace, stamp: Stamp) -> Checkout:
    """Return the checkout that the options of `add_options` name."""
    if given.before is not None:
        return existing_checkout(given.before)
    return checkout_of(given.commit, stamp, given.cache)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graftwork" / "commits"


def _git(root: Path, *arguments: str) -> str:
    command: Sequence[str] = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
