"""This module takes a JPEG apart and keeps what its pixels need: no metadata, no thumbnail, nothing after the end
(ITU-T T.81)."""

import re

_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: Huffman coded all
_KEPT = (*_FRAMES, 0xC4, 0xDB, _DRI)  # with Huffman and quantisation tables
_SEGMENTS = frozenset((*_KEPT, *range(0xE0, 0xF0), 0xFE, _SOS))  # those, application data, comments, and scans
# What ends entropy-coded data: 0xFF before anything but stuffing, restarts, and fill bytes.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_MAX_SCANS = 64  # encoders write about ten; each costs a pass over the whole image
_MAX_TABLES = 1 << 14  # bytes


class TooManyScans(ValueError):
    """A progressive JPEG was made to be slow."""


def stripped(data: bytes) -> bytes | None:
    """Return the same image, bit for bit, without the bytes that no pixel needs; None for a file of an unusual layout.

    Stripping again changes nothing. Raises `TooManyScans`.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    parts, jfif, adobe = [], b"", b""
    at, scans, frames, tables = 2, 0, 0, 0
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if len(data) < at + 2 or data[at] != 0xFF:
            return None
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _EOI:
            break
        segment = data[at : at + 2 + length]
        if length < 2 or len(segment) < 2 + length or marker not in _SEGMENTS:
            return None
        at += 2 + length
        if marker == 0xE0 and segment[4:9] == b"JFIF\0":
            jfif = _JFIF
        elif marker == 0xEE and segment[4:9] == b"Adobe" and length == 14:
            adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + segment[15:16]  # which colours the numbers are
        elif marker in _KEPT:
            frames += marker in _FRAMES
            tables += len(segment)
            parts.append(segment)
        elif marker == _SOS:
            scans += 1
            if scans > _MAX_SCANS:
                raise TooManyScans(f"it has more than {_MAX_SCANS} scans")
            following = _MARKER.search(data, at)
            if following is None:
                return None
            scan = data[at : following.start()].rstrip(b"\xff")
            parts += [segment, scan]
            at += len(scan)
    if frames != 1 or scans == 0 or tables > _MAX_TABLES:
        return None
    return b"".join([b"\xff\xd8", jfif, adobe, *parts, b"\xff\xd9"])
