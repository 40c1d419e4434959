import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from app.cli.demo.digits import write_digits_zip
from app.datasets.formats.archive import ArchiveLimits, names
from app.datasets.formats.layout import check_layout, read_layout
from app.datasets.intake.intake import IntakeLimits, take_in


def test_the_zip_is_a_usable_dataset(tmp_path: Path) -> None:
    path = tmp_path / "digits.zip"
    write_digits_zip(path, per_class=5)
    layout = read_layout([entry.name for entry in names(path, ArchiveLimits())])
    check_layout(layout)
    assert Counter(placement.label for placement in layout.placements.values()) == {str(d): 5 for d in range(10)}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            image = take_in(archive.read(name), name, IntakeLimits())
            assert (image.width, image.height, image.notes) == (64, 64, ())


def test_held_out_digits_are_not_in_the_zip(tmp_path: Path) -> None:
    path = tmp_path / "digits.zip"
    held_out = write_digits_zip(path)
    with zipfile.ZipFile(path) as archive:
        packed = {archive.read(name) for name in archive.namelist()}
    assert len(packed) == 600
    assert len({label for _, _, label in held_out}) == len({name for name, _, _ in held_out}) == 3
    for _, data, label in held_out:
        assert data not in packed
        assert label in "0123456789"
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("PNG", (64, 64))


def test_a_zero_is_hollow_and_a_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "digits.zip"
    write_digits_zip(path, per_class=100)
    centre: dict[str, list[float]] = {"0": [], "1": []}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name[0] in centre:
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    centre[name[0]].append(ImageStat.Stat(image.crop((24, 24, 40, 40))).mean[0])
    assert sum(centre["0"]) / 100 < 60
    assert sum(centre["1"]) / 100 > 150


@pytest.mark.parametrize("per_class", [0, -1, 174, 1000])
def test_per_class_out_of_range(tmp_path: Path, per_class: int) -> None:
    with pytest.raises(ValueError, match="per_class"):
        write_digits_zip(tmp_path / "digits.zip", per_class)
