"""Datasets can be named rather than sent: a list of addresses, a prefix of a bucket, or a folder of this server.

What was named is kept as a blob, a document in place of an archive: the job that reads it is the same.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from app.core.errors import FieldError, Invalid
from app.core.outbound.addresses import read_allowed
from app.core.outbound.errors import OutboundError
from app.core.outbound.exchange import Bounds, Exchange
from app.core.outbound.fetching import Fetcher
from app.core.outbound.urls import check_url
from app.core.settings import Settings
from app.datasets.formats.label_rows import LabelRow, place
from app.datasets.formats.layout import Layout, Placement, Skipped, check_layout
from app.datasets.intake.intake import RejectedFile
from app.datasets.schemas import UploadOptions
from app.datasets.sources.bucket import BucketFiles, allowed_prefix
from app.datasets.sources.folder import FolderFiles, allowed_root
from app.datasets.sources.source import Budget, ReadFile, Source, StandingSource
from app.storage.connection import S3Options

FORMATS = ("urls", "s3", "folder")


class NamedImage(BaseModel):
    """This names one image elsewhere, and its label."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=2048, description="An https URL; redirects are followed, to public addresses only.")
    label: str = Field(min_length=1, max_length=255)
    split: Literal["train", "val", "test"] | None = None
    metadata: dict[str, Any] = Field(
        default={}, description="Further facts to store with the image, at most 16 KiB of JSON."
    )


class ImportRequest(UploadOptions):
    """One of `urls`, `s3` and `folder`, and the options of an upload."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "pets", "urls": [{"url": "https://images.example/cat.jpg", "label": "cat", "split": "train"}]},
                {"name": "pets", "s3": "s3://bucket/pets", "val_fraction": 0.2},
                {"name": "pets", "folder": "/srv/images/pets"},
            ]
        },
    )

    urls: Annotated[list[NamedImage], Field(min_length=1, max_length=500_000, fail_fast=True)] | None = None
    s3: str | None = Field(
        default=None, max_length=1024, description="A bucket prefix that the operator allows: s3://bucket/prefix."
    )
    folder: str | None = Field(default=None, max_length=1024, description="A folder that the operator allows.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "ImportRequest":
        if sum(one is not None for one in (self.urls, self.s3, self.folder)) != 1:
            raise ValueError("give exactly one of urls, s3 and folder")
        return self


_NAMED_IMAGES = TypeAdapter(list[NamedImage])


def check_import(request: ImportRequest, settings: Settings) -> tuple[str, bytes, str | None]:
    """Return what kind of reference it is, the document to keep of it, and what to call the place.

    Raises `Invalid` for what the operator does not allow, and for a list that no dataset can be made of.
    """
    if request.folder is not None:
        allowed_root(request.folder, _folders(settings))
        return "folder", _document(request.folder), request.folder
    if request.s3 is not None:
        allowed_prefix(request.s3, _words(settings.import_buckets))
        return "s3", _document(request.s3), request.s3
    assert request.urls is not None
    if len(request.urls) > settings.max_import_urls:
        detail = f"There are {len(request.urls)} addresses, more than {settings.max_import_urls}. Import them in parts."
        raise Invalid(detail, code="too_many_urls", errors=[FieldError("urls", detail, "too_many_urls")])
    check_layout(_layout(request.urls))
    return "urls", _document([one.model_dump() for one in request.urls]), None


def open_source(kind: str, document: bytes, settings: Settings, budget: Budget) -> Source:
    """Return what a worker reads. The operator's settings are looked at again: they may be others by now, or there."""
    named = json.loads(document)
    if kind == "urls":
        allowed = read_allowed(_words(settings.import_hosts), "GRAFT_IMPORT_HOSTS")
        exchange = Exchange(allowed, Bounds(settings.max_file_bytes, setting="GRAFT_MAX_FILE_BYTES"))
        return UrlSource(_NAMED_IMAGES.validate_python(named), Fetcher(exchange, "image/*"), budget)
    most = settings.max_archive_entries, settings.max_file_bytes
    if kind == "folder":
        return StandingSource(FolderFiles(*allowed_root(named, _folders(settings)), *most), budget)
    bucket, prefix = allowed_prefix(named, _words(settings.import_buckets))
    return StandingSource(BucketFiles(bucket, prefix, _s3_options(settings), *most), budget)


class UrlSource:
    """This source has images at addresses, with what was said of each."""

    apart = True

    def __init__(self, named: list[NamedImage], fetcher: Fetcher, budget: Budget) -> None:
        self._named = named
        self._fetcher = fetcher
        self._budget = budget

    def layout(self) -> Layout:
        return _layout(self._named)

    def files(self, layout: Layout) -> Iterator[tuple[str, ReadFile]]:
        for url in layout.placements:
            yield url, self._budget.counted(partial(self._fetch, url))

    def _fetch(self, url: str) -> bytes:
        try:
            return self._fetcher.fetch(url)
        except OutboundError as error:
            raise RejectedFile(error.code, error.reason, error.remedy) from None


def _layout(named: list[NamedImage]) -> Layout:
    placements: dict[str, Placement] = {}
    refused: dict[str, Skipped] = {}
    for number, one in enumerate(named, start=1):
        try:
            check_url(one.url)
            placed = place(LabelRow(one.url, "", one.label, one.split, one.metadata, f"urls, number {number},"))
        except OutboundError as bad:
            placed = Skipped(one.url, bad.code, bad.reason, bad.remedy)
        if isinstance(placed, Skipped):
            refused[one.url] = placed
        elif placements.setdefault(one.url, placed).label != placed.label:
            reason = f"It stands there as {placements[one.url].label} and as {placed.label}."
            refused[one.url] = Skipped(one.url, "conflicting_labels", reason, "Keep the one label that is right.")
    kept = {url: placed for url, placed in placements.items() if url not in refused}
    return Layout(kept, list(refused.values()), any(placed.split is not None for placed in kept.values()), 0)


def _document(named: Any) -> bytes:
    return json.dumps(named, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _folders(settings: Settings) -> list[Path]:
    return [Path(word) for word in _words(settings.import_folders)]


def _s3_options(settings: Settings) -> S3Options:
    access, secret = settings.import_s3_access_key, settings.import_s3_secret_key
    return S3Options(
        endpoint=settings.import_s3_endpoint,
        region=settings.import_s3_region,
        access_key=access.get_secret_value() if access else None,
        secret_key=secret.get_secret_value() if secret else None,
    )
