"""This module reads a tar as a stream: one header at a time, in constant memory, trusting nothing unchecked.

`tarfile` reads extended headers of any declared size into memory, scans them with a pattern that backtracks
quadratically (CVE-2024-6232) and recurses once per header. On bytes from strangers that is too much trust, and the
part of the format that image archives use is small: ustar, GNU long names, PAX `path` and `size` (POSIX.1-2017, pax).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

_BLOCK = 512
_CHUNK = 1 << 16
_MAX_EXTENDED_BYTES = 1 << 16  # a name of 64 KiB is no name
_MAX_EXTENDED_HEADERS = 8  # before one member
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"5": "folder",
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"6": "named pipe",
    b"S": "sparse file",
}


class DamagedTar(ValueError):
    """The stream is not a whole, well-formed tar. The message says where it breaks."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A tar has members. `kind` is `file`, `folder`, or the words for what else it is; `size` is in bytes.

    `read()` returns the content once, and only until the next member is asked for.
    """

    name: str
    kind: str
    size: int
    read: Callable[[], bytes]


def is_header(block: bytes) -> bool:
    """Return whether `block` (512 bytes) is a tar header with a right checksum, or the end marker."""
    try:
        return len(block) == _BLOCK and (block == bytes(_BLOCK) or _checksum(block) == _number(block[148:156]))
    except DamagedTar:
        return False


def read_tar(read: Callable[[int], bytes]) -> Iterator[TarMember]:
    """Yield the members of the tar that `read(n)` delivers, in order; `read` may return fewer than `n` bytes.

    Ends at the end marker, after draining the stream so that a compressed stream's own checksum is verified.
    Raises `DamagedTar` for a header with a wrong checksum, a stream that ends early, or a missing end marker.
    """
    stream = _Stream(read)
    extended = _Extended()
    while True:
        header = stream.exactly(_BLOCK)
        if header == bytes(_BLOCK):
            stream.drain()
            return
        if not is_header(header):
            raise DamagedTar(f"the header at byte {stream.position - _BLOCK} has a wrong checksum")
        kind, size = header[156:157], _number(header[124:136])
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            extended.add(kind, stream.padded(size, limit=_MAX_EXTENDED_BYTES))
            continue

        name = extended.name if extended.name is not None else _name(header)
        size = extended.size if extended.size is not None else size
        words = _KINDS.get(kind, f"member of type {kind!r}")
        if extended.sparse:
            words = "sparse file"
        elif words == "file" and name.endswith("/"):  # how the oldest tars mark a folder
            words = "folder"
        stored = size if words in ("file", "sparse file") else 0
        end = stream.position + stored + -stored % _BLOCK
        yield TarMember(name, words, stored, stream.reader(stored))
        stream.skip_to(end)
        extended = _Extended()


class _Stream:
    """This stream counts what was read, so that skipping never depends on what the consumer did."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.position = 0

    def exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._read(min(count, _CHUNK))
            if not part:
                raise DamagedTar(f"it ends at byte {self.position}, {count} bytes before it should")
            self.position += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def padded(self, size: int, limit: int) -> bytes:
        if size > limit:
            raise DamagedTar(f"the extended header at byte {self.position} claims {size} bytes, more than {limit}")
        return self.exactly(size + -size % _BLOCK)[:size]

    def skip_to(self, end: int) -> None:
        while self.position < end:
            self.exactly(min(end - self.position, _CHUNK))

    def drain(self) -> None:
        while self._read(_CHUNK):
            pass

    def reader(self, size: int) -> Callable[[], bytes]:
        start = self.position

        def read() -> bytes:
            if self.position != start:
                raise RuntimeError("a member's content can be read once, and only while it is the current member")
            return self.exactly(size)

        return read


class _Extended:
    """Extended headers say this about the member that follows them."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.size: int | None = None
        self.sparse = False
        self._count = 0

    def add(self, kind: bytes, payload: bytes) -> None:
        self._count += 1
        if self._count > _MAX_EXTENDED_HEADERS:
            raise DamagedTar(f"more than {_MAX_EXTENDED_HEADERS} extended headers stand before one member")
        if kind == _LONG_NAME:
            self.name = _text(payload.removesuffix(b"\0"))
        elif kind == _PAX:
            for key, value in _records(payload):
                if key == b"path":
                    self.name = _text(value)
                elif key == b"size":
                    self.size = _decimal(value)
                elif key.startswith(b"GNU.sparse."):
                    self.sparse = True


def _records(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the `length key=value` lines of a PAX header; the length counts the whole line."""
    at = 0
    while at < len(payload):
        space = payload.find(b" ", at, at + 8)
        end = at + _decimal(payload[at:space]) if space > 0 else 0
        key, equals, value = payload[space + 1 : end].partition(b"=")
        if space < 0 or not space < end <= len(payload) or not equals or not value.endswith(b"\n"):
            raise DamagedTar("a PAX header is malformed")
        yield key, value[:-1]
        at = end


def _name(header: bytes) -> str:
    name = _until_nul(header[:100])
    prefix = _until_nul(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(name: bytes) -> str:
    # Names that are not UTF-8 come out with surrogates; the archive's rules on names refuse those by name.
    return name.decode("utf-8", "surrogateescape")


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + sum(b" " * 8) + sum(header[156:])


def _number(field: bytes) -> int:
    """Return the number in octal digits, or in base 256 where the first bit is set (GNU, for sizes from 8 GiB)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = _until_nul(field).strip(b" ")
    if not all(0x30 <= digit <= 0x37 for digit in digits):
        raise DamagedTar("a number in a header is neither octal nor positive")
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise DamagedTar("a number in a PAX header is malformed")
    return int(digits)
