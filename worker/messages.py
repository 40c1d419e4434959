"""What a worker and the child that computes for it say to each other: one JSON object a line."""

import json
from typing import Any, Literal, TypedDict

Kind = Literal["ready", "progress", "epoch", "checkpoint", "result", "failed", "setback", "stopped"]


class Work(TypedDict):
    """The one message from parent to child: the job to do."""

    spec: dict[str, Any]
    manifest_sha256: str | None  # of the dataset version to train on, or to predict
    checkpoints: list[str]  # SHA-256 of those to go on from, newest first
    scratch: str  # a folder of this attempt's own; the parent removes it


class Message(TypedDict):
    """A message from child to parent. `body` depends on `kind`; see the functions of `worker.parent.Parent`."""

    kind: Kind
    body: dict[str, Any]


def encode(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Any:
    return json.loads(line)
