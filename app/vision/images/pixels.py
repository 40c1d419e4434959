"""Converts any decoded image to upright 8-bit RGB, without clipping or guessing."""

from PIL import ExifTags, Image, TiffImagePlugin

_WHITE = (255, 255, 255, 255)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DIRECT = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})


class UnsupportedPixels(ValueError):
    """The samples have no defined white, or the colour space no defined way to RGB."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return `image` (loaded, any mode) as a new RGB image.

    16-bit grey is scaled so that its white becomes 255; transparency is composited on white; colour profiles are
    not applied. Raises `UnsupportedPixels` for 32-bit integers, floats and Lab.
    """
    if image.mode.startswith("I;16"):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    if image.mode not in _DIRECT:
        raise UnsupportedPixels(f"Pixels of mode {image.mode} have no defined conversion to RGB")
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    """Return `pixels` turned and mirrored as the EXIF orientation (CIPA DC-008, tag 0x0112) of `source` asks.

    Damaged EXIF counts as none: many cameras and editors write it, and the pixels are sound.
    """
    transpose = _transpose(source)
    return pixels if transpose is None else pixels.transpose(transpose)


def is_upright(source: Image.Image) -> bool:
    """Return whether `upright` would leave the pixels of `source` as they are."""
    return _transpose(source) is None


def _transpose(source: Image.Image) -> Image.Transpose | None:
    try:
        orientation = source.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _eight_bits(image: Image.Image) -> Image.Image:
    bits = 16
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # 12-bit samples come unscaled in a 16-bit mode
        bits = min(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,)))
    scale = 255 / ((1 << bits) - 1)
    # Mode I evaluates scale and offset in floating point and cuts off the rest: the half makes that rounding.
    return image.convert("I").point(lambda sample: sample * scale + 0.5).convert("L")
