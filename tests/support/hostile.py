"""Archives and images made to do harm, each with what is to become of it."""

import gzip
import io
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping

import zstandard
from PIL import Image

from tests.support.images import encode, folder, jpeg, photo, png

GOOD = folder({"ants": 2, "bees": 2}, size=(16, 16))
_BILLION_LAUGHS = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;&c;</annotation>'


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content, compress_type=method)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes], *last: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in last:
            archive.addfile(member)
    return buffer.getvalue()


def _special(kind: bytes, target: str = "/etc/passwd") -> bytes:
    member = tarfile.TarInfo("ants/evil.jpg")
    member.type, member.linkname = kind, target
    return tarred(GOOD, member)


def _zip_link() -> bytes:
    link = zipfile.ZipInfo("ants/evil.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    buffer = io.BytesIO(zipped(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def _patched(data: bytes, patch: Callable[[bytearray, int, int], None]) -> bytes:
    """The zip with its last directory record, and its end record, changed in place."""
    changed = bytearray(data)
    patch(changed, changed.rindex(b"PK\x01\x02"), changed.rindex(b"PK\x05\x06"))
    return bytes(changed)


def _put(format_: str, offset: int, value: int, end: bool = False) -> Callable[[bytearray, int, int], None]:
    return lambda data, record, last: struct.pack_into(format_, data, (last if end else record) + offset, value)


def _pax(record: bytes) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = b"x", len(record)
    return tarred(GOOD)[: -tarfile.RECORDSIZE] + header.tobuf() + record.ljust(-(-len(record) // 512) * 512, b"\0")


def _headers(count: int) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type = b"x"
    return header.tobuf() * count + tarred(GOOD)


# What is refused as a whole, at once or once it has been read: the archive, and the codes that it may be refused with.
ARCHIVES: dict[str, tuple[bytes, set[str]]] = {
    "a zip that climbs out": (zipped(GOOD | {"../../evil.jpg": b"x"}), {"unsafe_name"}),
    "a zip that climbs out half-way": (zipped(GOOD | {"ants/../../evil.jpg": b"x"}), {"unsafe_name"}),
    "a zip with an absolute name": (zipped(GOOD | {"/tmp/evil.jpg": b"x"}), {"unsafe_name"}),
    "a zip with backslashes": (zipped(GOOD | {"..\\..\\evil.jpg": b"x"}), {"unsafe_name"}),
    "a zip with a drive": (zipped(GOOD | {"C:evil.jpg": b"x"}), {"unsafe_name"}),
    "a zip with a terminal's commands": (zipped(GOOD | {"ants/\x1b]0;evil\x07.jpg": b"x"}), {"unsafe_name"}),
    "a zip with an endless name": (zipped(GOOD | {"ants/" + "x" * 5000 + ".jpg": b"x"}), {"unsafe_name"}),
    "a zip with NUL in a name": (
        zipped(GOOD | {"ants/evil.jpgX.exe": b"x"}).replace(b"evil.jpgX", b"evil.jpg\0"),
        {"unsafe_name"},
    ),
    "a tar that climbs out": (tarred(GOOD | {"../evil.jpg": b"x"}), {"unsafe_name"}),
    "a tar with an absolute name": (tarred(GOOD | {"/tmp/evil.jpg": b"x"}), {"unsafe_name"}),
    "a tar whose PAX name climbs out": (
        _pax(b"25 path=../../../evil.jpg") + tarred({"a.jpg": b"x"}),
        {"damaged_archive", "unsafe_name"},
    ),
    "names that differ in case": (zipped(GOOD | {"ANTS/0000.JPG": b"x"}), {"duplicate_name"}),
    "names that differ in Unicode form": (
        zipped(GOOD | {"ants/\u00e9.jpg": b"x", "ants/e\u0301.jpg": b"y"}),
        {"duplicate_name"},
    ),
    "a symbolic link in a zip": (_zip_link(), {"not_a_plain_file"}),
    "a symbolic link in a tar": (_special(tarfile.SYMTYPE), {"not_a_plain_file"}),
    "a hard link in a tar": (_special(tarfile.LNKTYPE, "ants/0000.jpg"), {"not_a_plain_file"}),
    "a character device": (_special(tarfile.CHRTYPE), {"not_a_plain_file"}),
    "a block device": (_special(tarfile.BLKTYPE), {"not_a_plain_file"}),
    "a named pipe": (_special(tarfile.FIFOTYPE), {"not_a_plain_file"}),
    "a sparse file": (_special(tarfile.GNUTYPE_SPARSE), {"not_a_plain_file"}),
    "entries that share their bytes": (
        _patched(zipped(GOOD | {"ants/a.jpg": bytes(9999), "ants/b.jpg": b"b"}), _put("<I", 42, 0)),
        {"overlapping_entries"},
    ),
    "an entry that claims the directory": (
        _patched(zipped(GOOD), _put("<I", 20, 2000)),
        {"overlapping_entries"},
    ),
    "an encrypted entry": (_patched(zipped(GOOD), _put("<H", 8, 1)), {"encrypted_archive"}),
    "bzip2 in a zip": (zipped(GOOD, zipfile.ZIP_BZIP2), {"unsupported_compression"}),
    "LZMA in a zip": (zipped(GOOD, zipfile.ZIP_LZMA), {"unsupported_compression"}),
    "a zip bomb": (zipped(GOOD | {f"ants/{n}.bmp": bytes(9 << 20) for n in range(3)}), {"compression_ratio"}),
    "a tar.gz bomb": (gzip.compress(tarred(GOOD | {"ants/a.bmp": bytes(40 << 20)})), {"compression_ratio"}),
    "a tar.zst bomb": (zstandard.compress(tarred(GOOD | {"ants/a.bmp": bytes(40 << 20)})), {"compression_ratio"}),
    "a tar.zst that wants memory": (
        b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(40),  # RFC 8878, 3.1.1.1.2: a window of 2^31 bytes
        {"damaged_archive"},
    ),
    "a gzip in a gzip": (gzip.compress(gzip.compress(tarred(GOOD))), {"not_an_archive"}),
    "archives in an archive": (zipped({f"{n}/a.zip": zipped(GOOD) for n in "ab"}), {"no_images"}),
    "a directory beyond the file": (_patched(zipped(GOOD), _put("<I", 16, 2**32 - 2, end=True)), {"damaged_archive"}),
    "a directory before the file": (_patched(zipped(GOOD), _put("<I", 12, 2**31, end=True)), {"damaged_archive"}),
    "an entry beyond the file": (_patched(zipped(GOOD), _put("<I", 42, 2**31)), {"damaged_archive"}),
    "more entries than are counted": (
        zipped({f"a/{n}.jpg": b"" for n in range(2000)}),
        {"too_many_entries"},
    ),
    "a chain of extended headers": (_headers(5000), {"damaged_archive"}),
    "a malformed PAX record": (_pax(b"99999999999 path=a"), {"damaged_archive"}),
    "a tar with a wrong checksum": (
        tarred(GOOD).replace(b"ants/0001.jpg", b"ants/0009.jpg"),
        {"damaged_archive"},
    ),
    "a tar cut short": (tarred(GOOD)[:1500], {"damaged_archive"}),
    "a zip cut short": (zipped(GOOD)[:-30], {"damaged_archive"}),
    "a picture that is a zip too": (png(photo(0, 0)) + zipped(GOOD), {"not_an_archive"}),
    "a page that is a zip too": (b"<html><script>" + zipped(GOOD), {"not_an_archive"}),
    "a PDF": (b"%PDF-1.7 " + zipped(GOOD), {"not_an_archive"}),
    "a billion laughs": (
        zipped({"JPEGImages/1.jpg": b"x", "Annotations/1.xml": _BILLION_LAUGHS}),
        {"malformed_labels"},
    ),
    "labels that never end": (zipped(GOOD | {"labels.jsonl": b"[" * 100_000}), {"malformed_labels"}),
    "labels that are no number": (
        zipped(GOOD | {"labels.jsonl": b'{"path": "ants/0000.jpg", "label": "a", "x": NaN}'}),
        {"malformed_labels"},
    ),
}


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND", b"")


def _slow_jpeg() -> bytes:
    plain = jpeg(photo(0, 0), progressive=True)
    return plain[:-2] + plain[plain.rindex(b"\xff\xda") : -2] * 200 + plain[-2:]


_PHOTO = photo(0, 0, (32, 32))
_JPEG, _PNG = jpeg(_PHOTO), png(_PHOTO)

# Files that are left out, each with its code, of an upload that is kept without them.
IMAGES: dict[str, tuple[bytes, str]] = {
    "script.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not_an_image"),
    "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not_an_image"),
    "svg-with-bom.png": (b'\xef\xbb\xbf<?xml version="1.0"?><svg onload="alert(1)"/>', "not_an_image"),
    "page.jpg": (b"<!doctype html><script>alert(1)</script>", "not_an_image"),
    "postscript.jpg": (encode(_PHOTO, "EPS"), "not_an_image"),
    "document.jpg": (b"%PDF-1.7 /JavaScript", "not_an_image"),
    "nested.jpg": (zipped(GOOD), "not_an_image"),
    "nested.zip": (zipped(GOOD), "not_an_image"),
    "nested.tar.jpg": (tarred(GOOD), "not_an_image"),
    "photoshop.jpg": (b"8BPS\0\1" + bytes(40), "not_an_image"),
    "icon.png": (encode(_PHOTO, "ICO"), "not_an_image"),
    "heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(40), "not_an_image"),
    "program.jpg": (b"\x7fELF" + bytes(60), "not_an_image"),
    "shell.jpg": (b"#!/bin/sh\nrm -rf /\n", "not_an_image"),
    "empty.jpg": (b"", "empty_file"),
    "pixel-bomb.png": (_png(30_000, 30_000), "image_too_large"),
    "pixel-flood.png": (_png(2**31 - 1, 2**31 - 1), "image_too_large"),
    "long.png": (_png(50_000, 2), "image_too_large"),
    "gif-bomb.gif": (b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(40), "damaged_image"),
    "line.png": (_png(50, 1, _chunk(b"IDAT", zlib.compress(bytes(151)))), "image_too_small"),
    "text-bomb.png": (
        _png(
            8, 8, _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80 << 20))), _chunk(b"IDAT", zlib.compress(bytes(200)))
        ),
        "damaged_image",
    ),
    "short.png": (_png(100, 100, _chunk(b"IDAT", zlib.compress(bytes(100)))), "truncated_image"),
    "wrong-crc.png": (_PNG[:40] + bytes([_PNG[40] ^ 1]) + _PNG[41:], "damaged_image"),
    "slow.jpg": (_slow_jpeg(), "image_too_costly"),
    "cut.jpg": (_JPEG[: len(_JPEG) // 2], "truncated_image"),
    "header.jpg": (_JPEG[:20], "damaged_image"),
    "cut.webp": (encode(_PHOTO, "WEBP")[:60], "damaged_image"),
    "floats.tif": (encode(Image.new("F", (8, 8)), "TIFF"), "unsupported_pixels"),
    "loop.tif": (b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x08\0\0\0\x08\0\0\0", "damaged_image"),
    "huge-strip.bmp": (encode(_PHOTO, "BMP")[:18] + struct.pack("<ii", 2**30, -(2**30)) + bytes(40), "damaged_image"),
}
