"""This module reads an untrusted zip: its directory, bounded and checked against the local headers, and its entries in
chunks."""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from app.core.errors import Invalid
from app.datasets.formats.entry_names import printable, refuse

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
_LOCAL_HEADER = struct.Struct("<4s2xH18xHH")
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # traditional, strong, masked headers
_PATCH = 0x0020
_UTF8 = 0x0800
_UNIX_SYSTEMS = (3, 19)


@dataclass(frozen=True, slots=True)
class ZipItem:
    """The zip's directory names this file or folder. `size` is declared, in bytes; `start` is where its data stand in
    the file."""

    name: str
    size: int
    is_folder: bool
    start: int
    info: zipfile.ZipInfo


def read_directory(file: BinaryIO, max_entries: int) -> list[ZipItem]:
    """Return the checked entries of the zip in `file` (of the file system), in the directory's order.

    Raises `Invalid` (`too_many_entries`, `encrypted_archive`, `not_a_plain_file`, `unsupported_compression`,
    `overlapping_entries`), or one of `ZIP_FAULTS` for a damaged zip.
    """
    archive = zipfile.ZipFile(_BoundedDirectory(file, max_entries))
    infos = archive.infolist()
    names = [_name(info) for info in infos]
    for info, name in zip(infos, names, strict=True):
        _check_plain(info, name)
    starts = _starts(file, infos, names, archive.start_dir)
    return [
        ZipItem(name, info.file_size, name.endswith("/"), start, info)
        for info, name, start in zip(infos, names, starts, strict=True)
    ]


def read_chunks(file: BinaryIO, item: ZipItem) -> Iterator[bytes]:
    """Yield the bytes of the entry in chunks of at most 64 KiB, decompressed as they are asked for; the checksum is
    verified.

    Raises one of `ZIP_FAULTS` where it is damaged.
    """
    # Not with zipfile's own reader: opening a member costs it more than reading a small one.
    size, checksum = 0, 0
    packed = _packed(file, item)
    for chunk in _inflated(packed) if item.info.compress_type == zipfile.ZIP_DEFLATED else packed:
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        if size > item.size:
            break
        yield chunk
    if size != item.size:  # compressed data may also end before they should
        raise zipfile.BadZipFile(
            f"{item.size} bytes were declared, and there are {'more' if size > item.size else size}"
        )
    if checksum != item.info.CRC:
        raise zipfile.BadZipFile("the checksum is another")


def _packed(file: BinaryIO, item: ZipItem) -> Iterator[bytes]:
    file.seek(item.start)
    left = item.info.compress_size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise EOFError
        left -= len(chunk)
        yield chunk


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in packed:
        while chunk and not inflate.eof:
            yield inflate.decompress(chunk, _CHUNK)
            chunk = inflate.unconsumed_tail
    if rest := inflate.flush():  # little: all that went in was asked for
        yield rest


class _BoundedDirectory(io.BufferedIOBase):
    """This file refuses to give zipfile a directory of too many entries.

    zipfile reads the whole directory with one `read` and builds an object for each record, believing the sizes
    in the file. Each record starts with a signature, so counting signatures bounds the number of objects.
    """

    def __init__(self, file: BinaryIO, max_entries: int) -> None:
        self._file = file
        self._max_entries = max_entries

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = -1 if size is None else size
        limit = self._max_entries * _DIRECTORY_BYTES_PER_ENTRY + (1 << 17)  # and the zip's own comment
        data = self._file.read(min(wanted, limit + 1) if wanted >= 0 else limit + 1)
        if len(data) > limit or data.count(_DIRECTORY_SIGNATURE) > self._max_entries:
            raise too_many_entries(self._max_entries)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("an offset points before the file")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def too_many_entries(limit: int) -> Invalid:
    """Return the error for an archive of more than `limit` entries."""
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


def _check_plain(info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise refuse("encrypted_archive", name, "This entry is encrypted.", "Pack the archive without a password.")
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system in _UNIX_SYSTEMS else 0
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse(
            "not_a_plain_file", name, "This entry is a link or a device.", "Pack the files themselves instead."
        )
    # bzip2 and LZMA expand a few KiB into gigabytes in one call, which zipfile offers no way to bound.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & _PATCH:
        how = "as a patch" if info.flag_bits & _PATCH else f"with method {info.compress_type}"
        raise refuse(
            "unsupported_compression",
            name,
            f"This entry is compressed {how}.",
            "Pack the archive with the usual method, deflate, or without compression.",
        )


def _starts(file: BinaryIO, infos: list[zipfile.ZipInfo], names: list[str], directory: int) -> list[int]:
    """Return where the data of each entry begin, by its local header, which has to name it as the directory does.

    No two entries may share bytes: that is how a small zip expands a quadratic number of times (Fifield, 2019).
    """
    starts = [0] * len(infos)
    order = sorted(range(len(infos)), key=lambda place: infos[place].header_offset)
    limits = [*(infos[place].header_offset for place in order[1:]), directory]
    for place, limit in zip(order, limits, strict=False):
        info = infos[place]
        at = info.header_offset
        if at < 0:
            raise zipfile.BadZipFile("an entry starts before the file")
        header = os.pread(file.fileno(), _LOCAL_HEADER.size + 4 * len(info.orig_filename), at)
        signature, flags, name_length, extra_length = _LOCAL_HEADER.unpack_from(header)
        if signature != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no entry stands at byte {at}")
        named = header[_LOCAL_HEADER.size : _LOCAL_HEADER.size + name_length]
        if (other := named.decode("utf-8" if flags & _UTF8 else "cp437")) != info.orig_filename:
            raise zipfile.BadZipFile(f"{printable(names[place])} is called {printable(other)} before its data")
        starts[place] = at + _LOCAL_HEADER.size + name_length + extra_length
        if starts[place] + info.compress_size > limit:
            raise refuse(
                "overlapping_entries",
                names[place],
                "The data of this entry overlaps what follows it.",
                "Pack the archive again with an ordinary zip tool.",
            )
    return starts
