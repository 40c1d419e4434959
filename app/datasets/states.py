"""The states of a dataset."""

from enum import StrEnum


class DatasetState(StrEnum):
    """`processing` while the upload is read; `ready` to train on; `failed` with the reason in `failure`."""

    processing = "processing"
    ready = "ready"
    failed = "failed"
