"""This module tells what a file is by its first bytes."""

_OTHERS = {
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip file",
}


def is_lossy_webp(data: bytes) -> bool:
    """Return whether the first image in the RIFF chunks is lossy VP8 (RFC 9649); data of an unknown kind counts as
    not."""
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8 "
        # A frame of an animation is 16 bytes of geometry and then chunks of its own.
        at += 8 + (16 if kind == b"ANMF" else size + size % 2)
    return False


def kind_of(data: bytes) -> str:
    """Return what data is that no image format claims, as the end of a sentence."""
    for magic, words in _OTHERS.items():
        if data.startswith(magic):
            return words
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    head = data[:512]
    if head.lstrip()[:1] == b"<":
        return "HTML, SVG or XML text"
    if all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in head):
        return "text"
    return f"of an unknown format (it begins with the bytes {head[:8].hex(' ')})"
