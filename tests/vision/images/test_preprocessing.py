"""From files of every sort to the pixels a network sees."""

from __future__ import annotations

import io
import json
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from app.vision.backbones.catalogue import get_backbone
from app.vision.errors import InvalidData
from app.vision.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from tests.support.pictures import draw

SMALL = Preprocessing(resize=32, crop=24)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quadrants(width: int = 64, height: int = 64) -> Image.Image:
    """Red, green over blue, white."""
    array = np.zeros((height, width, 3), dtype=np.uint8)
    array[: height // 2, : width // 2, 0] = 255
    array[: height // 2, width // 2 :, 1] = 255
    array[height // 2 :, : width // 2, 2] = 255
    array[height // 2 :, width // 2 :] = 255
    return Image.fromarray(array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that EXIF says is to be undone
    turned = quadrants() if orientation == 1 else quadrants().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = SMALL.load(encoded(turned, "PNG", exif=exif))
    assert np.array_equal(loaded, SMALL.load(quadrants()))


def test_the_centre_square_is_kept() -> None:
    wide = Image.new("RGB", (100, 40), "black")
    wide.paste("white", (30, 0, 70, 40))
    inner = (slice(1, -1), slice(1, -1))  # the filter looks one pixel past the edge
    assert (SMALL.load(wide)[inner] == 255).all()
    assert (SMALL.load(wide.transpose(Image.Transpose.ROTATE_90))[inner] == 255).all()


def test_the_crop_is_the_middle() -> None:
    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
    assert np.array_equal(SMALL.input_of(pixels), pixels[4:28, 4:28])
    assert SMALL.input_of(np.zeros((5, 32, 32, 3), np.uint8)).shape == (5, 24, 24, 3)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    pixels = SMALL.load(Image.new("RGB", (40, 40), "white").convert(mode))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == 255).all()


def test_transparency_lies_over_white() -> None:
    assert (SMALL.load(encoded(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG")) == 255).all()
    gif = encoded(Image.new("P", (40, 40), 3), "GIF", transparency=3)
    assert (SMALL.load(gif) == 255).all()


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.full((40, 40), 0x4000, dtype=np.uint16))
    assert np.unique(SMALL.load(encoded(grey, "PNG"))).tolist() == [0x40]


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same() -> None:
    large = draw(0, 1).resize((1200, 900), Image.Resampling.BICUBIC)
    data = encoded(large, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data))
    whole.load()  # decoded already: nothing is left for `draft` to save
    difference = SMALL.load(data).astype(int) - SMALL.load(whole).astype(int)
    assert abs(difference).mean() < 2


CUT_SHORT = [encoded(draw(0, 0), kind)[:250] for kind in ("PNG", "JPEG")]


@pytest.mark.parametrize("data", [b"", b"no image", *CUT_SHORT])
def test_what_is_no_image_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="not a readable image"):
        SMALL.load(data)
    (tmp_path / "broken.jpg").write_bytes(data)
    with pytest.raises(InvalidData, match=r"broken\.jpg"):
        SMALL.load(tmp_path / "broken.jpg")


def test_normalised_like_torchvision() -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    expected = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
    torch.testing.assert_close(SMALL.normalize(pixels), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(SMALL.normalize(pixels.permute(0, 3, 1, 2)), expected, atol=1e-5, rtol=1e-5)


def test_backbones_bring_their_published_sizes() -> None:
    assert Preprocessing.for_backbone(get_backbone("resnet18"), 224) == Preprocessing(256, 224)
    assert Preprocessing.for_backbone(get_backbone("resnet50"), 224) == Preprocessing(232, 224)
    assert Preprocessing.for_backbone(get_backbone("resnet18"), 112) == Preprocessing(128, 112)


def test_json_and_back() -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL


def test_threads_that_load_images_leave_the_warnings_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own way to silence them restores what the first one had set, where the second one in is the last out."""
    before, second_in, first_out = list(warnings.filters), Event(), Event()
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)

    def square(_: Preprocessing, image: Image.Image) -> NDArray[np.uint8]:
        if image.width == 1:
            second_in.wait(60)
        else:
            second_in.set()
            first_out.wait(60)
        return pixels

    monkeypatch.setattr(Preprocessing, "square", square)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(SMALL.load, Image.new("RGB", (1, 1)))
        while list(warnings.filters) == before:  # until it is in
            time.sleep(0.001)
        second = pool.submit(SMALL.load, Image.new("RGB", (2, 2)))
        first.result(60)
        first_out.set()
        second.result(60)
    assert list(warnings.filters) == before
