"""A dataset has these states."""

from enum import StrEnum


class DatasetState(StrEnum):
    """A dataset is `processing` while the upload is read; `ready` to train on; `failed` with its `failure`."""

    processing = "processing"
    ready = "ready"
    failed = "failed"
