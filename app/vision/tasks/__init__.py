"""A task is what can be learnt: one folder, and its name here. Nothing outside a task's folder names it.

The folders have the same files: `task` (with `TASK`), `head`, `losses`, `evaluation`, `answers`, `pictures`. A process
that computes nothing imports `answers` and `tables` alone, which do not load torch.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

# The package of each task, by the name that model files bear. The first one is that of files which name none.
TASKS: dict[str, str] = {"classify": "app.vision.tasks.classify"}


def default_task() -> str:
    """Return the name of the task that is meant where none is named."""
    return next(iter(TASKS))


def part_of_task(part: str, task: str | None = None) -> ModuleType:
    """Return the module `part` of a task, imported now; raises KeyError for a task that there is not."""
    return import_module(f"{TASKS[task or default_task()]}.{part}")
