"""Add a form's files to a dataset. Each file is checked in a process with limits, and each gets its own result."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.api.deps import Services
from app.core.errors import FieldError, GraftError, Invalid, Malformed
from app.core.settings import Settings
from app.datasets import images as dataset_images
from app.datasets import service as datasets
from app.datasets.formats.label_rows import LabelRow, only_plain
from app.datasets.intake.intake import RejectedFile, StoredImage
from app.datasets.intake.limits import intake_limits
from app.datasets.intake.pool import IntakePool
from app.datasets.schemas import AddedItem, AddedOut, ItemError

_HOW = "Send curl -F file=@a.jpg -F file=@b.jpg '…/images?label=ants'."
_KNOWN = {"label", "split", "metadata"}


@dataclass(frozen=True, slots=True)
class SentFile:
    """One file of the form, on disk if it is large, with its label, split and metadata."""

    file: BinaryIO
    name: str | None
    size: int
    said: LabelRow


@asynccontextmanager
async def read_batch(
    request: Request, settings: Settings, label: str | None, split: str
) -> AsyncIterator[list[SentFile]]:
    """Yield the form's files; `label` and `split` apply if the form has none. Raises `Invalid` and `Malformed`."""
    try:
        async with request.form(max_files=settings.max_batch_files, max_fields=1) as form:
            yield list(_files(form, label, split))
    except HTTPException as error:
        if error.status_code != 400:
            raise
        if "Too many files" in error.detail:
            most = settings.max_batch_files
            detail = f"More than {most} files. Send them in several calls, or raise GRAFT_MAX_BATCH_FILES."
            raise Invalid(
                detail, code="too_many_files", errors=[FieldError("file", detail, "too_many_files")]
            ) from None
        detail = f"The form cannot be read ({error.detail.rstrip('.')}). {_HOW}"
        raise Malformed(detail, errors=[FieldError("body", detail, "malformed")]) from None


def _files(form: FormData, label: str | None, split: str) -> Iterator[SentFile]:
    sent: list[UploadFile] = []
    labels: list[dict[str, object]] | None = None
    for name, part in form.multi_items():
        if name == "file" and isinstance(part, UploadFile):
            sent.append(part)
        elif name == "labels" and isinstance(part, str):
            labels = _labels(part)
        else:
            detail = f"There is no form field {name!r}. Send images as file parts named 'file', and labels as 'labels'."
            raise Invalid(detail, errors=[FieldError(name, detail, "unknown_field")])
    if not sent:
        raise Invalid(f"No image was sent. {_HOW}", code="no_image", errors=[FieldError("file", _HOW, "no_image")])
    if labels is None:
        labels = [{}] * len(sent)
    if len(labels) != len(sent):
        raise _bad_labels(f"it has {len(labels)} entries for {len(sent)} files")
    for part, said in zip(sent, labels, strict=True):
        metadata = said.get("metadata") or {}
        given = [said.get("label", label), said.get("split") or split]
        if not isinstance(metadata, dict) or not all(isinstance(one, str | None) for one in given):
            raise _bad_labels("label and split are text, and metadata is an object")
        name = part.filename or ""
        line = LabelRow(name, "", given[0], given[1], metadata, f"What was said of {name or 'the file'}")  # type: ignore[arg-type]
        yield SentFile(part.file, part.filename, part.size or 0, line)


def _labels(text: str) -> list[dict[str, object]]:
    try:
        labels = json.loads(text, parse_constant=only_plain)
    except (ValueError, RecursionError) as error:
        raise _bad_labels(f"it is not JSON ({str(error)[:80]})") from None
    if not isinstance(labels, list) or not all(isinstance(one, dict) and one.keys() <= _KNOWN for one in labels):
        raise _bad_labels("it is not a list of objects with label, split and metadata")
    return labels


def _bad_labels(why: str) -> Invalid:
    detail = f'labels: {why}. Send a JSON list like [{{"label": "ants", "split": "val"}}], an entry for each file.'
    return Invalid(detail, code="bad_labels", errors=[FieldError("labels", detail, "bad_labels")])


def add_batch(services: Services, workspace_id: UUID, dataset_id: str, files: list[SentFile]) -> AddedOut:
    """Check every file, then add the good ones in one transaction. Raises `TooLarge` (`workspace_full`)."""
    with IntakePool(intake_limits(services.settings), 1) as pool:
        checked = [_take_in(services, pool, file) for file in files]
    with services.database.writing() as session:
        dataset = dataset_images.check_ready(datasets.get(session, workspace_id, dataset_id, lock=True))
        size = sum(len(stored.data) for stored in checked if isinstance(stored, StoredImage))
        datasets.quota(session, workspace_id, services.settings.max_workspace_bytes).check(size)
        items = []
        for file, stored in zip(files, checked, strict=True):
            if isinstance(stored, ItemError):
                items.append(AddedItem(file=file.name, status="error", error=stored))
                continue
            try:
                added = dataset_images.add_image(session, dataset, file.said, stored)
            except GraftError as error:
                told = ItemError(code=error.code, detail=error.detail)
                items.append(AddedItem(file=file.name, status="error", sha256=stored.sha256, error=told))
            else:
                items.append(AddedItem(file=file.name, status="added" if added else "unchanged", sha256=stored.sha256))
        return AddedOut(items=items)


def _take_in(services: Services, pool: IntakePool, file: SentFile) -> StoredImage | ItemError:
    limit = services.settings.max_file_bytes
    if file.size > limit:
        detail = f"The file is larger than {limit} bytes. Send a smaller one, or raise GRAFT_MAX_FILE_BYTES."
        return ItemError(code="file_too_large", detail=detail)
    try:
        stored = pool.take_in(file.file.read(), file.name or "")
    except RejectedFile as rejected:
        return ItemError(code=rejected.code, detail=f"{rejected.reason} {rejected.remedy}")
    services.store.put_bytes(stored.data)
    return stored
