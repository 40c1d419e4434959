"""This module reads uploaded zip, tar, tar.gz and tar.zst archives member by member. Nothing is ever extracted by
name."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import zstandard

from app.core.errors import FieldError, Invalid, TooLarge, UnsupportedMedia
from app.datasets.formats.entry_names import EntryNames, refuse
from app.datasets.formats.tar_stream import DamagedTar, TarMember, is_header, read_tar
from app.datasets.formats.zip_file import ZIP_FAULTS, ZipItem, read_chunks, read_directory, too_many_entries

Format = Literal["zip", "tar", "tar.gz", "tar.zst"]

_MIB = 1 << 20
_TAR_FAULTS = (DamagedTar, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError)
_ZSTD_WINDOW = 32 * _MIB  # bytes of memory that a frame may ask for; levels to 20 stay below, --long does not
_RATIO_FLOOR = 16 * _MIB  # below this nothing can hurt, and a few tiny plain images do compress a thousandfold
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)))  # RFC 8878, 3.1
_OTHERS = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\xfd7zXZ\x00": "an xz file",
    b"BZh": "a bzip2 file",
    b"PK\x07\x08": "one part of a zip split over several files",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"<": "HTML or XML text",
    b"{": "JSON text",
}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """One archive may cost at most this. Sizes are in bytes after decompression; `max_ratio` is decompressed / uploaded
    bytes."""

    max_entries: int = 200_000
    max_file_bytes: int = 64 * _MIB
    max_total_bytes: int = 64 << 30
    max_ratio: int = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry is a file in the archive. `name` is NFC, relative, with `/`; `size` is what the archive declares, in
    bytes."""

    name: str
    size: int


Member = tuple[Entry, Callable[[], bytes]]


class Listing:
    """A listing keeps the directory of a zip, from the pass that checked it to the next pass over the same file."""

    def __init__(self) -> None:
        self.items: list[tuple[Entry, ZipItem]] | None = None


def detect_format(path: Path) -> Format:
    """Return the format of the file at `path`, told by its first bytes and never by its name.

    Raises `UnsupportedMedia` (`not_an_archive`) for anything else.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(_ZIP_MAGIC):
        return "zip"
    if head.startswith(_GZIP_MAGIC):
        with _damage_translated(_TAR_FAULTS), gzip.open(path) as inner:
            if is_header(inner.read(512)):
                return "tar.gz"
        found = "a gzip file with no tar inside"
    elif head.startswith(_ZSTD_MAGIC):
        with _damage_translated(_TAR_FAULTS), path.open("rb") as compressed:
            if is_header(_unzstd(compressed)(512)):
                return "tar.zst"
        found = "a Zstandard file with no tar inside, or one that is cut off"
    elif is_header(head):
        return "tar"
    elif not head:
        found = "an empty file"
    else:
        known = (words for magic, words in _OTHERS.items() if head.startswith(magic))
        found = next(known, f"a file that begins with the bytes {head[:8].hex(' ')}")
    detail = (
        f"The upload is {found}. Archives are read as zip, tar, tar.gz or tar.zst: pack the images as one of these."
    )
    raise UnsupportedMedia(detail, code="not_an_archive", errors=[FieldError("file", detail, "not_an_archive")])


def names(path: Path, limits: ArchiveLimits) -> list[Entry]:
    """Yield the files of the archive at `path` (folders are left out), in archive order.

    Walks the whole archive and applies every rule that does not need the content. Raises `UnsupportedMedia`,
    or `Invalid` with one of the codes `unsafe_name`, `duplicate_name`, `not_a_plain_file`, `encrypted_archive`,
    `overlapping_entries`, `unsupported_compression`, `too_many_entries`, `archive_too_large`, `compression_ratio`,
    `damaged_archive`, `empty_archive`.
    """
    return [entry for entry, _ in members(path, limits)]


def members(path: Path, limits: ArchiveLimits, listing: Listing | None = None) -> Iterator[Member]:
    """Yield the same files one after another, each with a `read()` that is good only while its member is the current
    one.

    `read()` counts bytes while they are decompressed. It raises `TooLarge` (`file_too_large`) for one file over
    `max_file_bytes`, after which iteration may go on, and `Invalid` once the archive as a whole is over its limits
    or damaged. A tar is checked as it streams: call `names` first to refuse a bad one before using any of it. Who goes
    through one archive twice may give the same `listing` both times, and its directory is read once.
    """
    archive_format = detect_format(path)
    with _damage_translated((*ZIP_FAULTS, *_TAR_FAULTS)), path.open("rb", buffering=_MIB) as file:
        budget = _Budget(limits, compressed=path.stat().st_size)
        if archive_format == "zip":
            found = _zip_members(file, limits, budget, listing or Listing())
        elif archive_format == "tar":
            found = _tar_members(file.read, limits, budget)
        elif archive_format == "tar.gz":
            found = _tar_members(gzip.GzipFile(fileobj=file).read, limits, budget)
        else:
            found = _tar_members(_unzstd(file), limits, budget)
        empty = True
        for member in found:
            empty = False
            yield member
        if empty:
            detail = "The archive holds no files. Pack the folder that holds the images."
            raise Invalid(detail, code="empty_archive", errors=[FieldError("file", detail, "empty_archive")])


def _zip_members(file: BinaryIO, limits: ArchiveLimits, budget: "_Budget", listing: Listing) -> Iterator[Member]:
    if listing.items is None:
        known = EntryNames()
        named = [
            (known.accept(item.name, folder=item.is_folder), item) for item in read_directory(file, limits.max_entries)
        ]
        listing.items = [(Entry(name, item.size), item) for name, item in named if not item.is_folder]
    for entry, item in listing.items:
        yield entry, partial(_read_zip, file, item, entry, limits, budget)


def _read_zip(file: BinaryIO, item: ZipItem, entry: Entry, limits: ArchiveLimits, budget: "_Budget") -> bytes:
    parts, size = [], 0
    with _damage_translated(ZIP_FAULTS, entry.name):
        for chunk in read_chunks(file, item):
            budget.spend(len(chunk))
            size += len(chunk)
            if size > limits.max_file_bytes:
                raise _too_large(entry, limits)
            parts.append(chunk)
    return b"".join(parts)


def _tar_members(read: Callable[[int], bytes], limits: ArchiveLimits, budget: "_Budget") -> Iterator[Member]:
    def counted(size: int) -> bytes:
        block = read(size)
        budget.spend(len(block))
        return block

    known = EntryNames()
    for number, member in enumerate(read_tar(counted), start=1):
        if number > limits.max_entries:
            raise too_many_entries(limits.max_entries)
        name = known.accept(member.name, folder=member.kind == "folder")
        if member.kind == "folder":
            continue
        if member.kind != "file":
            remedy = "Pack the files themselves instead (GNU tar: --dereference --hard-dereference)."
            raise refuse("not_a_plain_file", name, f"This entry is a {member.kind}, not a file.", remedy)
        entry = Entry(name, member.size)
        yield entry, partial(_read_tar, member, entry, limits)


def _read_tar(member: TarMember, entry: Entry, limits: ArchiveLimits) -> bytes:
    if entry.size > limits.max_file_bytes:  # in a tar the declared size is the framing, so it is the real one
        raise _too_large(entry, limits)
    with _damage_translated(_TAR_FAULTS, entry.name):
        return member.read()


def _unzstd(file: BinaryIO) -> Callable[[int], bytes]:
    """Return a `read(n)` of the decompressed bytes, all frames of them, in bounded memory."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return decompressor.stream_reader(file, read_across_frames=True, closefd=False).read


class _Budget:
    """A budget counts decompressed bytes of the whole archive against its limits."""

    def __init__(self, limits: ArchiveLimits, compressed: int) -> None:
        self._limits = limits
        self._compressed = compressed
        self._spent = 0

    def spend(self, count: int) -> None:
        self._spent += count
        if self._spent > self._limits.max_total_bytes:
            raise Invalid(
                f"The archive unpacks to more than {self._limits.max_total_bytes} bytes. Upload it in several parts.",
                code="archive_too_large",
            )
        if self._spent > max(_RATIO_FLOOR, self._limits.max_ratio * self._compressed):
            raise Invalid(
                f"The archive unpacks to more than {self._limits.max_ratio} times its {self._compressed} bytes, which "
                "no collection of photographs does. Pack the images in a format of their own, such as JPEG or PNG.",
                code="compression_ratio",
            )


def _too_large(entry: Entry, limits: ArchiveLimits) -> TooLarge:
    message = f"The file is larger than {limits.max_file_bytes} bytes. Send a smaller version of the image."
    return TooLarge(
        f"{entry.name}: {message}", code="file_too_large", errors=[FieldError(entry.name, message, "file_too_large")]
    )


@contextmanager
def _damage_translated(faults: tuple[type[Exception], ...], name: str = "archive") -> Iterator[None]:
    """Raise one error for every way in which bytes can fail to be the archive they claim to be. A disk's error stays
    one."""
    try:
        yield
    except faults as error:
        remedy = "Check that the upload was complete, and pack the archive again."
        if "too much memory" in str(error):  # a Zstandard frame whose window is over the limit
            remedy = "Pack it with zstd at level 19 or lower and without --long."
        message = f"The archive is damaged or cut off ({error}). {remedy}"
        raise Invalid(message, code="damaged_archive", errors=[FieldError(name, message, "damaged_archive")]) from error
