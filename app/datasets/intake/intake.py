"""This module turns one untrusted file into the image that is kept (whole, upright, RGB, without metadata), or rejects
it."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeVar

from PIL import Image, UnidentifiedImageError

from app.datasets.formats.file_kinds import is_lossy_webp, kind_of
from app.datasets.intake.jpeg import TooManyScans, stripped
from app.datasets.intake.similarity import Sketch, perceptual_hashes, sketch
from app.vision.images.pillow import without_pillow_warnings
from app.vision.images.pixels import UnsupportedPixels, is_upright, to_rgb, upright

T = TypeVar("T")
MediaType = Literal["image/jpeg", "image/png"]

MIN_SIDE = 2  # px; handwritten digits of 8 × 8 px are legitimate, a line of pixels is not

# What a format is called in a name. A file may carry another's name: it is told by its content.
_SUFFIXES = {
    "JPEG": ("jpg", "jpeg"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "TIFF": ("tif", "tiff"),
    "GIF": ("gif",),
}
_FORMATS = tuple(_SUFFIXES)
# More than any encoder writes: what is longer carries something else between its scans, and is encoded anew.
_MOST_BYTES_PER_PIXEL, _MOST_TABLES = 4, 1 << 14
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8")
_EXPORT = "Export it again from its source, or leave it out."


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """One image may cost at most this. The header alone decides, before anything is decoded: `max_pixels` is width ×
    height, `max_side` is in px. `cpu_seconds` binds where images are read in processes of their own (`intake_pool`)."""

    max_pixels: int = 64_000_000
    max_side: int = 20_000
    cpu_seconds: int = 20


@dataclass(frozen=True, slots=True)
class Note:
    """A note says something worth knowing about an image that was accepted."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An accepted image has these: the bytes that are kept, their SHA-256 in hexadecimal, the upright image's size in
    px and perceptual hash."""

    data: bytes
    sha256: str
    media_type: MediaType
    width: int
    height: int
    phash: str
    notes: tuple[Note, ...]


class RejectedFile(Exception):
    """The file cannot be kept. `code` is stable; `reason` and `remedy` are sentences for a person."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(code, reason, remedy)
        self.code = code
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class _UnhashedImage:
    """This is a `StoredImage` that has no perceptual hash yet."""

    data: bytes
    media_type: MediaType
    size: tuple[int, int]
    sketch: Sketch
    notes: tuple[Note, ...]

    def hashed(self, phash: str) -> StoredImage:
        sha256 = hashlib.sha256(self.data).hexdigest()
        return StoredImage(self.data, sha256, self.media_type, *self.size, phash, self.notes)


File = tuple[bytes, str]  # and its name
Taken = StoredImage | RejectedFile


def take_in_all(files: Sequence[File], limits: IntakeLimits) -> list[Taken]:
    """Return `take_in` of each file, in order, with the `RejectedFile` in the place of a file that was rejected."""
    with without_pillow_warnings():
        kept = [_take_in(data, name, limits) for data, name in files]
    hashes = iter(perceptual_hashes([one.sketch for one in kept if isinstance(one, _UnhashedImage)]))
    return [one.hashed(next(hashes)) if isinstance(one, _UnhashedImage) else one for one in kept]


def take_in(data: bytes, name: str, limits: IntakeLimits) -> StoredImage:
    """Decode `data` fully, and return its image and nothing else of it.

    An upright colour JPEG is stripped (`intake.jpeg`); other lossy sources become JPEG (quality 95, 4:4:4), all
    others PNG. What was kept once is kept as it is: the result's data gives the same data again, under the same
    Pillow. `name` is used for its extension alone. Safe to call from several threads. Raises `RejectedFile` with
    one of the codes `empty_file`, `not_an_image`, `image_too_large`, `image_too_small`, `truncated_image`,
    `damaged_image`, `unsupported_pixels`, `image_too_costly`; and nothing else.
    """
    (taken,) = take_in_all([(data, name)], limits)
    if isinstance(taken, RejectedFile):
        raise taken
    return taken


def _take_in(data: bytes, name: str, limits: IntakeLimits) -> _UnhashedImage | RejectedFile:
    def keep(image: Image.Image) -> _UnhashedImage:
        notes, size = _notes(image, name), image.size
        whole = _stripped(data, image)
        if whole == data:
            return _UnhashedImage(data, "image/jpeg", size, sketch(image), notes)
        if whole is None:
            lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and is_lossy_webp(data))
            pixels = _decode(image)
            size, kept = pixels.size, io.BytesIO()
            if not lossy:
                pixels.save(kept, "PNG", compress_level=1)
                return _UnhashedImage(kept.getvalue(), "image/png", size, sketch(pixels), notes)
            pixels.save(kept, "JPEG", quality=95, subsampling=0)
            whole = kept.getvalue()
        with Image.open(io.BytesIO(whole), formats=("JPEG",)) as plain:
            return _UnhashedImage(whole, "image/jpeg", size, sketch(plain), notes)

    try:
        return _read(data, limits, keep)
    except RejectedFile as rejected:
        return rejected


def _stripped(data: bytes, image: Image.Image) -> bytes | None:
    """Return the JPEG's own bytes where they hold only what its pixels need: nothing is lost, and nothing is
    encoded."""
    if image.format not in ("JPEG", "MPO"):
        return None
    whole = stripped(data)
    if image.mode != "RGB" or not is_upright(image) or whole is None:
        return None
    width, height = image.size
    return whole if len(whole) <= _MOST_BYTES_PER_PIXEL * width * height + _MOST_TABLES else None


def read_image(data: bytes, limits: IntakeLimits, read: Callable[[Image.Image], T]) -> T:
    """Return what `read` makes of the opened, not yet decoded image, after the same checks as `take_in`.

    Raises `RejectedFile` as `take_in` does, whatever of Pillow's errors `read` meets.
    """
    with without_pillow_warnings():
        return _read(data, limits, read)


def _read(data: bytes, limits: IntakeLimits, read: Callable[[Image.Image], T]) -> T:
    if not data:
        raise RejectedFile("empty_file", "The file is empty.", "Send it again, or leave it out.")
    with _open(data) as image:
        check_size(image.size, limits)
        try:
            return read(image)
        except Exception as error:
            _reject(error)


def _open(data: bytes) -> Image.Image:
    """Read the header, with no decoders but those on the list."""
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        if data.startswith(_MAGIC):
            raise _damaged("its header cannot be read") from None
        remedy = "Convert it to JPEG or PNG, or leave it out."
        raise RejectedFile("not_an_image", f"The content is {kind_of(data)}.", remedy) from None
    except Exception as error:
        _reject(error)


def check_size(size: tuple[int, int], limits: IntakeLimits) -> None:
    """Raise `RejectedFile` for a (width, height) in px that is over the limits or too small to show anything."""
    width, height = size
    if max(size) > limits.max_side or width * height > limits.max_pixels:
        most = f"{limits.max_pixels} pixels or {limits.max_side} px a side"
        raise RejectedFile("image_too_large", f"It is {width} × {height} px, more than {most}.", "Scale it down.")
    if min(size) < MIN_SIDE:
        reason = f"It is {width} × {height} px, less than {MIN_SIDE} px a side."
        raise RejectedFile("image_too_small", reason, "Send the image in its full size, or leave it out.")


def _decode(image: Image.Image) -> Image.Image:
    """Return all pixels of the first frame, upright, as RGB that carries no metadata."""
    image.load()
    pixels = upright(to_rgb(image), image)
    pixels.info = {}  # the encoders would copy a comment or a colour profile from here
    return pixels


def _reject(error: Exception) -> NoReturn:
    """Raise the `RejectedFile` for what Pillow raised. It has no closed list of that, so callers catch `Exception`."""
    if isinstance(error, UnsupportedPixels):
        remedy = "Convert it to RGB or greyscale with 8 or 16 bits."
        raise RejectedFile("unsupported_pixels", f"{error}.", remedy) from error
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        reason = "It has more pixels than can be decoded safely."
        raise RejectedFile("image_too_large", reason, "Scale it down.") from error
    if isinstance(error, TooManyScans):
        raise RejectedFile("image_too_costly", f"It is slow to decode on purpose: {error}.", _EXPORT) from error
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        reason = "The file ends before the image does."
        raise RejectedFile("truncated_image", reason, "Send the whole file again, or leave it out.") from error
    raise _damaged(f"{type(error).__name__}: {str(error)[:200]}") from error


def _damaged(why: str) -> RejectedFile:
    return RejectedFile("damaged_image", f"The image is damaged ({why}).", _EXPORT)


def _notes(image: Image.Image, name: str) -> tuple[Note, ...]:
    notes = []
    actual = "JPEG" if image.format == "MPO" else str(image.format)
    _, dot, suffix = name.rpartition(".")
    if dot and suffix.lower() not in _SUFFIXES[actual]:
        notes.append(Note("format_differs", f"The name ends in .{suffix}, the content is {actual}."))
    if _is_animated(image):
        notes.append(Note("first_frame_kept", "The file holds several frames; the first one is kept."))
    return tuple(notes)


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame takes nothing from the first
        return True
