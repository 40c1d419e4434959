"""Write the demo's dataset, 1,797 real handwritten digits, as an archive for an upload."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE = 64  # px, from 8: what the built-in backbone was trained at
_HELD_OUT = (2, 5, 7)


def write_digits_zip(path: Path, per_class: int = 60) -> list[tuple[str, bytes, str]]:
    """Write `per_class` (1 to 173) PNGs of each digit to the zip at `path`, in class folders `0` to `9`.

    Returns three digits of different classes that are not in the zip, as (name, PNG bytes, true label). Raises
    `ValueError` where `per_class` leaves none to hold out.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998, https://doi.org/10.24432/C50P49, the test set as scikit-learn ships it, 0..16 scaled to 0..255.
    Licence: CC BY 4.0.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    fewest = int(np.bincount(labels).min())
    if not 0 < per_class < fewest:
        raise ValueError(f"per_class is {per_class}; it must lie between 1 and {fewest - 1}")
    held_out = []
    with zipfile.ZipFile(path, "w") as pack:  # stored: PNGs are compressed already
        for digit in range(10):
            rows = np.flatnonzero(labels == digit)
            for row in rows[:per_class]:
                pack.writestr(f"{digit}/{row:04d}.png", _png(images[row]))
            if digit in _HELD_OUT:
                row = rows[per_class]
                held_out.append((f"{row:04d}.png", _png(images[row]), str(digit)))
    return held_out


def _png(digit: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(digit).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
