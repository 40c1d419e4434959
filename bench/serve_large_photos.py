"""Compare our decoding of photographs of 12 megapixels with decoding them whole with Pillow, on the same engine.

The other side is the published evaluation: the whole picture as RGB, torchvision's Resize and CenterCrop. The
photographs are the held-out ones, enlarged to 4000 x 3000.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from bench.rounds import alternate, arguments, compared, emit, note, spread
from bench.served import in_process, same_labels, served, serving_arguments

TARGET = 2.5
SAME = 0.99


def enlarged(data: bytes, size: tuple[int, int]) -> bytes:
    with Image.open(io.BytesIO(data)) as opened:
        photograph = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    out = io.BytesIO()
    photograph.save(out, "JPEG", quality=90)
    return out.getvalue()


def whole(preprocessing: Any) -> Any:
    """Decode every pixel, then resize and crop as torchvision's presets do."""
    prepare = Compose([Resize(preprocessing.resize), CenterCrop(preprocessing.crop)])

    def read(data: bytes) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(data)) as opened:
            return np.asarray(prepare(opened.convert("RGB")), dtype=np.uint8)

    return read


def main() -> None:
    parser = serving_arguments(arguments(__doc__))
    parser.add_argument("--images", type=int, default=150, help="how many photographs")
    parser.add_argument("--width", type=int, default=4000, help="of a photograph, in pixels; three quarters as high")
    given = parser.parse_args()
    with served(given) as service:
        note("enlarging the photographs")
        images = [enlarged(one, (given.width, given.width * 3 // 4)) for one in service.images[: given.images]]
        classifier, prepare = service.classifier, whole(service.classifier.preprocessing)
        answered: dict[int, str] = {}
        expected: dict[int, str] = {}
        for start in range(0, len(images), 8):  # all of them, once each
            part = images[start : start + 8]
            for labels, read in ((answered, classifier.prepare), (expected, prepare)):
                for number, row in enumerate(classifier.answer(np.stack([read(one) for one in part]))):
                    labels[start + number] = classifier.classes[int(row.probabilities.argmax())]
        ours, theirs = alternate(
            lambda _: in_process(classifier, images, given.seconds, 8)[0],
            lambda _: in_process(classifier, images, given.seconds, 8, prepare)[0],
            given.rounds,
        )
    same = same_labels(answered, expected) or 0.0
    ratio = compared(ours, theirs)
    emit(
        "serve_large_photos",
        **ratio,
        target=TARGET,
        same_labels=same,
        same_labels_target=SAME,
        met=ratio["ratio"] >= TARGET and same >= SAME,
        images_per_second={"ours": spread(ours, 1), "whole": spread(theirs, 1)},
        images=len(images),
        pixels=given.width * (given.width * 3 // 4),
        engine=service.engine,
        backbone=given.backbone,
        size=given.size,
    )


if __name__ == "__main__":
    main()
