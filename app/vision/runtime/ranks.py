"""Ranks are the processes that train one network together, as torchrun or a worker started them.

All functions answer for a process that is alone, too: it is rank 0 of 1. Rank 0 alone writes files and reports.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from app.vision import errors
from app.vision.errors import InvalidConfig, RankLost, Stopped, VisionError

T = TypeVar("T")
R = TypeVar("R")

MEETING = timedelta(minutes=15)  # until all have started
SILENCE = timedelta(hours=2)  # one rank may decode a large dataset while the others wait; a dead one shows at once
LAST_WORDS_S = 5.0  # for a rank's failure to reach the others before its connections close


def number() -> int:
    """Return this process's rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    return number() == 0


def announced_meeting_place() -> tuple[Store, int, int]:
    """Return where the processes that torchrun has started meet, this one's rank, and how many they are.

    From RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in the environment.
    """
    store, rank, ranks = next(rendezvous("env://", timeout=MEETING))
    return store, rank, ranks


def meeting_place(port: int, ranks: int, host: str = "127.0.0.1") -> TCPStore:
    """Return where processes meet: at `port` of `host`; with 0 one is made here, and the result knows its port.

    One that is made here hears every network of this machine, and asks nobody who he is.
    """
    return TCPStore(host, port, ranks, is_master=port == 0, timeout=MEETING, wait_for_workers=False)


@contextmanager
def joined(store: Store, rank: int, ranks: int) -> Iterator[None]:
    """Meanwhile this process is `rank` of `ranks` that meet at `store`: NCCL between GPUs, gloo between processors.

    An error that ends one rank ends all of them, and all raise the same. Raises RankLost where one of them is gone
    without a word.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=SILENCE)
    except RuntimeError as error:
        if _is_lost_connection(error):
            raise RankLost(rank) from error
        raise
    threads = torch.get_num_threads()
    try:
        _take_place()
        yield
    except Stopped:
        raise  # all ranks stop after the same step
    except Exception as error:
        if _is_lost_connection(error):
            raise _cause(store, rank) from error
        store.compare_set("failure", "", json.dumps(_portrait(error), default=str))
        dist.destroy_process_group()  # whoever waits for this rank learns at once
        _linger(store, ranks)
        raise
    finally:
        torch.set_num_threads(threads)
        if dist.is_initialized():
            dist.destroy_process_group()


def _take_place() -> None:
    """Take a GPU of its own for each rank of a machine, and its share of the processors."""
    here = neighbours(Path())
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // len(here))))
    if torch.cuda.is_available():
        if len(here) > torch.cuda.device_count():
            raise InvalidConfig(
                "resources.processes",
                f"{len(here)} on a machine with {torch.cuda.device_count()} GPU(s) for them; use at most so many.",
            )
        torch.cuda.set_device(here.index(number()))


def neighbours(folder: Path) -> list[int]:
    """Return the ranks on this machine that were given the same `folder`, in order."""
    own = (socket.gethostname(), str(folder))
    return [rank for rank, other in enumerate(gather(own)) if other == own]


def gather(value: T) -> list[T]:
    """Return what every rank has, in the order of the ranks."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def agree(value: T) -> T:
    """Return what the first rank has."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def any_of(flag: bool) -> bool:
    """Return whether one of the ranks says so."""
    if count() == 1:
        return flag
    votes = torch.tensor([int(flag)])
    dist.all_reduce(votes)
    return bool(votes)


def wait() -> None:
    """Wait until every rank has come here."""
    any_of(False)


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Let every rank have the first one's values: processors of different kinds do not round alike."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def add_up(tensor: Tensor) -> Tensor:
    """Return the sum over the ranks, in place."""
    if count() > 1:
        dist.all_reduce(tensor)
    return tensor


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Let every rank have the sum of all ranks' gradients, sent as one tensor."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = add_up(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for gradient, part in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def in_shares(items: Sequence[T], compute: Callable[[T], R]) -> list[R]:
    """Return what `compute` gives for each item, in order.

    The ranks share the work, and all of them have all results.
    """
    parts = gather([compute(item) for item in items[number() :: count()]])
    return [parts[place % count()][place // count()] for place in range(len(items))]


def _is_lost_connection(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _portrait(error: Exception) -> dict[str, Any]:
    return {"kind": type(error).__name__, "message": str(error), "fields": vars(error)}


def _cause(store: Store, rank: int) -> Exception:
    """Return why another rank left: what it said, or that it said nothing."""
    deadline = time.monotonic() + LAST_WORDS_S
    try:
        while not store.check(["failure"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        if store.check(["failure"]):
            said = json.loads(store.get("failure"))
            store.add("heard", 1)
            return _error(**said)
    except (dist.DistError, RuntimeError):
        pass  # it was the rank at which the others meet
    return RankLost(rank)


def _error(kind: str, message: str, fields: dict[str, Any]) -> Exception:
    """Return the error that another rank raised; one that is not of this package is a RuntimeError with its text."""
    found = getattr(errors, kind, None)
    if not (isinstance(found, type) and issubclass(found, VisionError)):
        return RuntimeError(f"another process of the run failed with {kind}: {message}")
    error = found.__new__(found)
    Exception.__init__(error, message)
    vars(error).update(fields)
    return error


def _linger(store: Store, ranks: int) -> None:
    """Wait, where this process holds the meeting place, until the others have read the failure."""
    deadline = time.monotonic() + LAST_WORDS_S
    try:
        while store.add("heard", 0) < ranks - 1 and time.monotonic() < deadline:
            time.sleep(0.05)
    except (dist.DistError, RuntimeError):
        pass
