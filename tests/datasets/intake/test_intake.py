import hashlib
import io
import pickle
import random
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from app.datasets.intake.intake import IntakeLimits, RejectedFile, StoredImage, take_in
from tests.support.images import encode, gif, jpeg, photo, png

LIMITS = IntakeLimits()
WHITE = (255, 255, 255)


def decoded(stored: StoredImage) -> Image.Image:
    image = Image.open(io.BytesIO(stored.data))
    image.load()
    return image


def pixel(data: bytes, name: str = "x.png", at: tuple[int, int] = (0, 0)) -> object:
    return decoded(take_in(data, name, LIMITS)).getpixel(at)


def rejected(data: bytes, name: str = "x.jpg", limits: IntakeLimits = LIMITS) -> RejectedFile:
    with pytest.raises(RejectedFile) as caught:
        take_in(data, name, limits)
    assert caught.value.reason.endswith(".")
    assert caught.value.remedy.endswith(".")
    return caught.value


def notes(data: bytes, name: str) -> list[str]:
    return [note.code for note in take_in(data, name, LIMITS).notes]


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [(b"IHDR", header), *chunks, (b"IEND", b"")]
    )


# What is kept


@pytest.mark.parametrize(
    ("file_format", "options", "media_type"),
    [
        ("JPEG", {}, "image/jpeg"),
        ("WEBP", {"quality": 80}, "image/jpeg"),
        ("WEBP", {"quality": 80, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, "image/jpeg"),
        ("WEBP", {"lossless": True}, "image/png"),
        ("PNG", {}, "image/png"),
        ("BMP", {}, "image/png"),
        ("TIFF", {}, "image/png"),
        ("TIFF", {"compression": "tiff_lzw"}, "image/png"),
        ("GIF", {}, "image/png"),
    ],
)
def test_lossy_sources_become_jpeg_and_others_png(
    file_format: str, options: dict[str, object], media_type: str
) -> None:
    source = photo(1, 0, (48, 32))
    stored = take_in(encode(source, file_format, **options), f"a.{file_format}", LIMITS)
    assert (stored.media_type, stored.width, stored.height, stored.notes) == (media_type, 48, 32, ())
    assert stored.sha256 == hashlib.sha256(stored.data).hexdigest()
    kept = decoded(stored)
    assert (kept.mode, kept.size, f"image/{str(kept.format).lower()}") == ("RGB", (48, 32), media_type)
    if file_format in ("PNG", "BMP", "TIFF") or options.get("lossless"):
        assert np.array_equal(np.asarray(kept), np.asarray(source))
    else:
        assert np.abs(np.asarray(kept, int) - np.asarray(source, int)).mean() < 20


def test_a_jpeg_that_is_encoded_again_is_so_at_high_quality_without_subsampling() -> None:
    kept = decoded(take_in(jpeg(photo(0, 0).convert("L"), quality=60), "a.jpg", LIMITS))
    assert [component[1:3] for component in kept.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    with Image.open(io.BytesIO(jpeg(photo(0, 1), quality=95))) as reference:
        assert kept.quantization == reference.quantization  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"restart_marker_rows": 1}])
def test_an_upright_jpeg_loses_nothing_but_its_metadata(options: dict[str, object]) -> None:
    source = jpeg(photo(0, 0), quality=70, comment=b"SECRET", **options)
    stored = take_in(source, "a.jpg", LIMITS)
    assert len(stored.data) < len(source)
    with Image.open(io.BytesIO(source)) as image:
        assert np.array_equal(np.asarray(decoded(stored)), np.asarray(image))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_was_kept_is_kept_as_it_is(file_format: str, mode: str) -> None:
    stored = take_in(encode(photo(0, 0).convert(mode), file_format), "a.jpg", LIMITS)
    again = take_in(stored.data, "b.jpg", LIMITS)
    assert (again.data, again.sha256, again.phash) == (stored.data, stored.sha256, stored.phash)


def test_rotated_and_cmyk_jpegs_are_kept_as_they_are_the_second_time() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (jpeg(photo(0, 0), exif=exif), jpeg(Image.new("CMYK", (16, 16), (0, 255, 255, 0)))):
        stored = take_in(data, "x.jpg", LIMITS)
        assert take_in(stored.data, "x.jpg", LIMITS).data == stored.data


def test_nothing_that_follows_or_hides_in_a_jpeg_is_kept() -> None:
    payload = b"PK\x03\x04 <script>alert(1)</script>" * 40
    plain = jpeg(photo(0, 0))
    inside = plain[:2] + b"\xff\xe5" + (len(payload) + 2).to_bytes(2, "big") + payload + plain[2:]
    kept = {take_in(data, "x.jpg", LIMITS).data for data in (plain, plain + payload, inside, plain + plain)}
    assert len(kept) == 1
    assert b"script" not in kept.pop()
    # Between the last pixel and the end no decoder looks, so what is far too long is not taken as it is.
    stuffed = plain[:-2] + payload * 30 + plain[-2:]
    assert b"script" not in take_in(stuffed, "x.jpg", LIMITS).data


def test_a_progressive_jpeg_made_to_be_slow() -> None:
    plain = jpeg(photo(0, 0), progressive=True)
    at = plain.rindex(b"\xff\xda")
    error = rejected(plain[:-2] + plain[at:-2] * 100 + plain[-2:])
    assert (error.code, "64 scans" in error.reason) == ("image_too_costly", True)


def test_the_same_data_gives_the_same_bytes() -> None:
    for data in (jpeg(photo(0, 0)), png(photo(0, 0))):
        assert take_in(data, "a.jpg", LIMITS).data == take_in(data, "b/c.png", LIMITS).data


def test_an_animated_lossy_webp_is_lossy() -> None:
    data = encode(photo(0, 0), "WEBP", save_all=True, append_images=[photo(1, 0)], quality=70)
    stored = take_in(data, "a.webp", LIMITS)
    assert (stored.media_type, [note.code for note in stored.notes]) == ("image/jpeg", ["first_frame_kept"])


# Pixels


def test_cmyk() -> None:
    assert pixel(encode(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)
    red = pixel(jpeg(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100))
    assert np.allclose(red, (255, 0, 0), atol=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(file_format: str) -> None:
    samples = np.array([[0, 128, 129, 257], [256, 32768, 65000, 65535]], dtype=np.uint16)
    kept = decoded(take_in(encode(Image.fromarray(samples), file_format), "x.png", LIMITS))
    expected = np.rint(samples / 257).astype(np.uint8)
    assert np.array_equal(np.asarray(kept), np.repeat(expected[..., None], 3, axis=2))


def test_big_endian_16_bit_grey() -> None:
    image = Image.frombytes("I;16B", (2, 2), np.array([0, 257, 32896, 65535], dtype=">u2").tobytes())
    kept = np.asarray(decoded(take_in(encode(image, "TIFF"), "x.tif", LIMITS)))
    assert kept[..., 0].ravel().tolist() == [0, 1, 128, 255]


def test_16_bit_rgb() -> None:
    row = struct.pack(">B6H", 0, 65535, 32896, 0, 257, 0, 65535)
    data = bytearray(png_of(2, 2, (b"IDAT", zlib.compress(row * 2))))
    data[24] = 16
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    assert pixel(bytes(data)) == (255, 128, 0)
    assert pixel(bytes(data), at=(1, 1)) == (1, 0, 255)


def test_palette() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert pixel(png(image)) == (10, 20, 30)
    assert pixel(gif(image), "x.gif") == (10, 20, 30)


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), {}, WHITE),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 51)), {}, (204, 204, 204)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 255)), {}, (10, 20, 30)),
        (Image.new("LA", (4, 4), (0, 51)), {}, (204, 204, 204)),
        (Image.new("P", (4, 4), 0), {"transparency": 0}, WHITE),
        (Image.new("RGB", (4, 4), (1, 2, 3)), {"transparency": (1, 2, 3)}, WHITE),
        (Image.new("L", (4, 4), 7), {"transparency": 7}, WHITE),
    ],
)
def test_transparency_lies_on_white(
    image: Image.Image, options: dict[str, object], expected: tuple[int, int, int]
) -> None:
    assert pixel(png(image, **options)) == expected


@pytest.mark.parametrize(
    ("image", "expected"), [(Image.new("L", (4, 4), 77), (77, 77, 77)), (Image.new("1", (4, 4), 1), WHITE)]
)
def test_grey_and_black_and_white(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert pixel(png(image)) == expected


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_samples_with_no_defined_white_are_rejected(mode: str) -> None:
    error = rejected(encode(Image.new(mode, (4, 4)), "TIFF"), "x.tif")
    assert error.code == "unsupported_pixels"
    assert mode in error.reason


CORNERS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [90, 90, 90], [255, 255, 255]]], dtype=np.uint8
)
TURNED = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: np.rot90(CORNERS, -1),
    7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(CORNERS),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_once_and_then_gone(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    stored = take_in(encode(Image.fromarray(CORNERS), file_format, exif=exif, **options), "x.png", LIMITS)
    kept = decoded(stored)
    assert np.array_equal(np.asarray(kept), TURNED[orientation])
    assert (stored.width, stored.height) == kept.size
    assert not kept.getexif()


def test_orientation_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(Image.fromarray(CORNERS.repeat(16, 0).repeat(16, 1)), exif=exif)
    stored = take_in(data, "x.jpg", LIMITS)
    assert (stored.width, stored.height) == (32, 48)
    assert np.allclose(np.asarray(decoded(stored))[8::16, 8::16], TURNED[6], atol=8)


def test_no_metadata_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    exif.get_ifd(0x8825)[1] = "N"
    options = {"exif": exif, "icc_profile": b"SECRET", "comment": b"SECRET", "xmp": b"SECRET", "dpi": (300, 300)}
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "SECRET")
    for data in (
        jpeg(photo(0, 0), **options),
        png(photo(0, 0), pnginfo=text, exif=exif, icc_profile=b"SECRET"),
        gif(photo(0, 0), comment=b"SECRET"),
    ):
        assert b"SECRET" in data or b"iCCP" in data
        stored = take_in(data, "x.jpg", LIMITS)
        assert b"SECRET" not in stored.data
        assert set(decoded(stored).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert b"Exif" not in stored.data


def test_damaged_exif_does_not_spoil_an_image() -> None:
    data = jpeg(photo(0, 0), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert take_in(data, "x.jpg", LIMITS).width == 64


# Notes


def test_content_that_differs_from_the_name() -> None:
    assert notes(gif(photo(0, 0)), "x.jpg") == ["format_differs"]
    assert notes(jpeg(photo(0, 0)), "x.PNG") == ["format_differs"]
    assert notes(jpeg(photo(0, 0)), "x.JPEG") == []
    assert notes(encode(photo(0, 0), "TIFF"), "x.tif") == []


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "TIFF"])
def test_the_first_frame_is_kept(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert notes(data, f"x.{file_format}") == ["first_frame_kept"]
    assert pixel(data) == (255, 0, 0)


def test_a_jpeg_of_several_pictures_is_a_jpeg() -> None:
    stored = take_in(encode(photo(0, 0), "MPO", save_all=True, append_images=[photo(1, 0)]), "x.jpg", LIMITS)
    assert (stored.media_type, [note.code for note in stored.notes]) == ("image/jpeg", ["first_frame_kept"])


# What is rejected


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"just some text, called .jpg", "text"),
        (b"<!doctype html><html>", "HTML"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"PK\x03\x04rest", "zip"),
        (b"\0\x01\x02\x03", "00 01 02 03"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, found: str) -> None:
    error = rejected(data)
    assert error.code == "not_an_image"
    assert found in error.reason


def test_decoders_that_are_not_on_the_list_stay_shut() -> None:
    for file_format in ("PPM", "TGA", "ICO", "PCX", "SGI", "DIB", "EPS", "JPEG2000"):
        assert rejected(encode(photo(0, 0), file_format)).code == "not_an_image", file_format


def test_an_empty_file() -> None:
    assert rejected(b"").code == "empty_file"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_truncated_files(file_format: str, share: float) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    data = encode(photo(0, 0, (96, 96)), file_format)
    error = rejected(data[: int(len(data) * share)])
    assert (
        error.code == "truncated_image" if file_format == "JPEG" else error.code in ("truncated_image", "damaged_image")
    )


def test_a_header_alone() -> None:
    assert rejected(jpeg(photo(0, 0))[:20]).code == "damaged_image"


def test_sizes_are_checked_before_decoding() -> None:
    limits = IntakeLimits(max_pixels=10_000, max_side=200)
    assert take_in(png_of(100, 100, (b"IDAT", zlib.compress(bytes(301 * 100)))), "x.png", limits).width == 100
    for width, height in ((101, 100), (201, 2), (2, 201)):  # there are no pixels in the file: reading would fail
        error = rejected(png_of(width, height), limits=limits)
        assert error.code == "image_too_large"
        assert f"{width} × {height}" in error.reason


@pytest.mark.parametrize(("width", "height"), [(9_500, 9_500), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs(width: int, height: int) -> None:
    assert rejected(png_of(width, height), limits=IntakeLimits()).code == "image_too_large"


def test_small_images() -> None:
    assert take_in(png(Image.new("L", (8, 8))), "x.png", LIMITS).width == 8
    assert take_in(png(Image.new("L", (2, 2))), "x.png", LIMITS).width == 2
    assert rejected(png(Image.new("L", (1, 50)))).code == "image_too_small"
    assert rejected(png(Image.new("L", (50, 1)))).code == "image_too_small"


def test_a_bomb_in_a_text_chunk() -> None:
    bomb = b"key\0\0" + zlib.compress(bytes(80 << 20))
    assert rejected(png_of(8, 8, (b"zTXt", bomb), (b"IDAT", zlib.compress(bytes(25 * 8))))).code == "damaged_image"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_random_damage_never_escapes_as_another_error(file_format: str) -> None:
    rng = random.Random(file_format)
    options = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"} if file_format in ("JPEG", "PNG", "WEBP") else {}
    data = encode(photo(0, 0, (24, 24)), file_format, **options)
    refusals = 0
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(min(len(broken), 200))] = rng.randrange(256)
        try:
            take_in(bytes(broken), "x.png", LIMITS)
        except RejectedFile:
            refusals += 1
    assert refusals > 10


def test_rejections_cross_process_borders() -> None:
    error = pickle.loads(pickle.dumps(rejected(b"text")))
    assert (type(error), error.code, error.remedy[:7]) == (RejectedFile, "not_an_image", "Convert")


def test_warnings_stay_inside_and_filters_are_restored() -> None:
    before = list(warnings.filters)
    bomb_warning = png_of(9_500, 9_500)
    odd_palette = png(Image.new("P", (4, 4)), transparency=b"\0\x80")

    def one(number: int) -> str:
        try:
            return take_in((bomb_warning, odd_palette)[number % 2], "x.png", IntakeLimits(max_pixels=10**9)).sha256
        except RejectedFile as error:
            return error.code

    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(one, range(64)))
    assert leaked == []
    assert len(set(results)) == 2
    assert list(warnings.filters) == before
