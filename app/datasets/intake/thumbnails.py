"""This module makes small copies of images, for people to look at."""

import io

from PIL import Image

MAX_SIDE = 512  # px


def media_type(data: bytes) -> str:
    """Return the media type of an image that was kept, one of two."""
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def thumbnail(data: bytes, side: int) -> bytes:
    """Return a JPEG of the kept image `data`, at most `side` px wide and high; a smaller image keeps its size."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
        image.thumbnail((side, side))  # a JPEG is decoded at a fraction of its size
        small = io.BytesIO()
        image.convert("RGB").save(small, "JPEG", quality=85)
    return small.getvalue()
