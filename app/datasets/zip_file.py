"""Opens an untrusted zip: its directory is bounded, checked against the local headers, and read in counted chunks."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from app.core.errors import Invalid
from app.datasets.entry_names import refuse

# All that zipfile lets through on hostile bytes: NotImplementedError is an unknown version or method, RuntimeError
# a password, ValueError covers undecodable names, OverflowError offsets beyond 64 bits.
ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)

_CHUNK = 1 << 16
_DIRECTORY_BYTES_PER_ENTRY = 512  # a record of 46 bytes, a name, extra fields
_DIRECTORY_SIGNATURE = b"PK\x01\x02"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # traditional, strong, masked headers
_UTF8 = 0x0800
_UNIX_SYSTEMS = (3, 19)


@dataclass(frozen=True, slots=True)
class ZipItem:
    """A file or folder of the zip, under the name it was given. `size` is declared, in bytes."""

    name: str
    size: int
    is_folder: bool
    info: zipfile.ZipInfo


class OpenZip:
    """A zip whose directory was checked. `items` stand in the directory's order."""

    def __init__(self, archive: zipfile.ZipFile, items: list[ZipItem]) -> None:
        self._archive = archive
        self.items = items

    def chunks(self, item: ZipItem) -> Iterator[bytes]:
        """The content in pieces of at most 64 KiB, decompressed as they are asked for; the checksum is verified.

        Raises one of `ZIP_FAULTS` where it is damaged.
        """
        size = 0
        with self._archive.open(item.info) as member:
            while chunk := member.read(_CHUNK):
                size += len(chunk)
                yield chunk
        if size != item.size:  # zipfile calls the end of the compressed data the end, wherever it comes
            raise zipfile.BadZipFile(f"{size} bytes where {item.size} were declared")


def open_zip(file: BinaryIO, max_entries: int) -> OpenZip:
    """Read and check the directory of the zip in `file`, which stays open and belongs to the caller.

    Raises `Invalid` (`too_many_entries`, `encrypted_archive`, `not_a_plain_file`, `unsupported_compression`,
    `overlapping_entries`), or one of `ZIP_FAULTS` for a damaged zip.
    """
    bounded = _BoundedDirectory(file, max_entries)
    archive = zipfile.ZipFile(bounded)
    bounded.opened = True
    items = []
    for info in archive.infolist():
        name = _name(info)
        items.append(ZipItem(name, info.file_size, name.endswith("/"), info))
    for item in items:
        _check_plain(item)
    _check_apart(file, items, archive.start_dir)
    return OpenZip(archive, items)


class _BoundedDirectory(io.BufferedIOBase):
    """A file that refuses to hand zipfile a directory of too many entries.

    zipfile reads the whole directory with one `read` and builds an object for each record, believing the sizes
    in the file. Each record starts with a signature, so counting signatures bounds the number of objects.
    """

    def __init__(self, file: BinaryIO, max_entries: int) -> None:
        self._file = file
        self._max_entries = max_entries
        self._at = file.tell()  # good although others move the file, too: zipfile seeks before it reads
        self.opened = False

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = -1 if size is None else size
        if self.opened:
            data = self._file.read(wanted)
            self._at += len(data)
            return data
        limit = self._max_entries * _DIRECTORY_BYTES_PER_ENTRY + (1 << 17)  # and the zip's own comment
        data = self._file.read(min(wanted, limit + 1) if wanted >= 0 else limit + 1)
        if len(data) > limit or data.count(_DIRECTORY_SIGNATURE) > self._max_entries:
            raise too_many_entries(self._max_entries)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("an offset points before the file")
        self._at = self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        # Asked after each read. The file asks the system, and hands the interpreter to other threads meanwhile.
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def too_many_entries(limit: int) -> Invalid:
    """The error for an archive of more than `limit` entries."""
    return Invalid(
        f"The archive holds more than {limit} entries. Upload it in several parts, or raise the limit.",
        code="too_many_entries",
    )


def _name(info: zipfile.ZipInfo) -> str:
    # orig_filename, for zipfile cuts `filename` at a NUL. Without the UTF-8 flag zipfile decodes as code page 437,
    # as the specification says; macOS and many others write UTF-8 there all the same.
    if info.flag_bits & _UTF8:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.orig_filename


def _check_plain(item: ZipItem) -> None:
    info = item.info
    if info.flag_bits & _ENCRYPTED:
        raise refuse("encrypted_archive", item.name, "This entry is encrypted.", "Pack the archive without a password.")
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system in _UNIX_SYSTEMS else 0
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse(
            "not_a_plain_file", item.name, "This entry is a link or a device.", "Pack the files themselves instead."
        )
    # bzip2 and LZMA expand a few KiB into gigabytes in one call, which zipfile offers no way to bound.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refuse(
            "unsupported_compression",
            item.name,
            f"This entry is compressed with method {info.compress_type}.",
            "Pack the archive with the usual method, deflate, or without compression.",
        )


def _check_apart(file: BinaryIO, items: list[ZipItem], directory: int) -> None:
    """No two entries may share bytes: that is how a small zip expands a quadratic number of times (Fifield, 2019)."""
    ordered = sorted(items, key=lambda item: item.info.header_offset)
    starts = [item.info.header_offset for item in ordered]
    for item, end_limit in zip(ordered, [*starts[1:], directory], strict=False):
        start = item.info.header_offset
        if start < 0:
            raise zipfile.BadZipFile("an entry starts before the file")
        file.seek(start)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no entry stands at byte {start}")
        if start + _LOCAL_HEADER.size + name_length + extra_length + item.info.compress_size > end_limit:
            raise refuse(
                "overlapping_entries",
                item.name,
                "The data of this entry overlaps what follows it.",
                "Pack the archive again with an ordinary zip tool.",
            )
