"""The messages between a worker and the child that computes for it: one JSON object a line."""

import json
from typing import Any, Literal, NotRequired, TypedDict

Kind = Literal["ready", "meeting", "met", "progress", "epoch", "checkpoint", "result", "failed", "setback", "stopped"]


# While a job runs, the parent says every so many seconds that it lives.
LIFE_SIGN_EVERY = 2.0
LIFE_SIGN = b"\n"


class Place(TypedDict):
    """This machine's place in a training that several share."""

    number: int  # 0: it leads
    machines: int
    meeting: str | None  # host:port, where the leader's child waits for the others; the leader's own makes it
    interface: str | None  # the network that leads to the others; None: the libraries find one


class Work(TypedDict):
    """The one message from parent to child, before its signs of life: the job to do."""

    spec: dict[str, Any]
    manifest_sha256: str | None  # of the dataset version to train on, or to predict
    checkpoints: list[str]  # SHA-256 of those to go on from, newest first
    scratch: str  # a folder of this attempt's own; the parent removes it
    place: NotRequired[Place]  # where several machines share the job


class Message(TypedDict):
    """A message from child to parent. `body` depends on `kind`; see the functions of `worker.child.parent.Parent`."""

    kind: Kind
    body: dict[str, Any]


def encode(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Any:
    return json.loads(line)
