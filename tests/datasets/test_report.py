"""What a dataset's report finds, and that a dataset without faults has no findings."""

import random
from typing import Any

import pytest

from app.datasets.orm import DatasetImage
from app.datasets.report import report_on
from app.datasets.schemas import DatasetReport, Finding, Severity
from tests.support.factories import sha

rng = random.Random(0)


def image(label: str = "ants", split: str = "train", **given: Any) -> DatasetImage:
    name = f"{label}-{split}-{rng.random()}"
    fields = {"width": 300, "height": 200, "size": 9000, "phash": f"{rng.getrandbits(64):016x}"} | given
    return DatasetImage(sha256=sha(name), name=name, label=label, split=split, extra=None, **fields)


def balanced() -> list[DatasetImage]:
    return [image(label, split) for label in ("ants", "bees") for split in ["train"] * 12 + ["val"] * 6]


def only(report: DatasetReport) -> Finding:
    (finding,) = report.findings
    assert finding.message.endswith(".")
    assert finding.remedy.endswith(".")
    return finding


def test_a_sound_dataset_has_no_findings_and_a_shape() -> None:
    images = balanced()
    images[0].width, images[1].height, images[2].size = 700, 600, 10
    report = report_on(images, {})
    assert report.findings == []
    assert (report.images, report.counts) == (36, {"train": {"ants": 12, "bees": 12}, "val": {"ants": 6, "bees": 6}})
    assert report.width is not None
    assert report.aspect is not None
    assert report.bytes is not None
    assert (report.width.min, report.width.median, report.width.max) == (300, 300, 700)
    assert (report.aspect.min, report.aspect.median, report.aspect.max) == (0.5, 1.5, 3.5)
    assert report.bytes.min == 10


def test_nothing_at_all() -> None:
    report = report_on([], {})
    assert (report.images, report.counts, report.width, report.findings) == (0, {}, None, [])


@pytest.mark.parametrize(
    ("first", "second", "code", "severity"),
    [
        (("ants", "train"), ("bees", "train"), "near_duplicates_under_two_labels", Severity.error),
        (("ants", "train"), ("bees", "val"), "near_duplicates_under_two_labels", Severity.error),
        (("ants", "train"), ("ants", "val"), "near_duplicates_across_splits", Severity.warning),
        (("ants", "val"), ("ants", "val"), "near_duplicates", Severity.info),
    ],
)
def test_images_that_look_the_same(
    first: tuple[str, str], second: tuple[str, str], code: str, severity: Severity
) -> None:
    pair = [image(*first, phash="00000000ffffffff"), image(*second, phash="01000000fffffffe")]
    finding = only(report_on(balanced() + pair, {}))
    assert (finding.code, finding.severity, finding.count) == (code, severity, 1)
    assert finding.images == [one.sha256 for one in pair]
    assert pair[0].name in finding.message
    for far in ("ff000000ffffffff", None):
        pair[1].phash = far
        assert report_on(balanced() + pair, {}).findings == []
    tiny = [image(*one, phash="00000000ffffffff", width=80, height=16) for one in (first, second)]
    assert not any(found.code == code for found in report_on(balanced() + tiny, {}).findings)


def test_what_the_upload_left_out_is_told_by_reason() -> None:
    def one(code: str, file: str) -> dict[str, Any]:
        return {"file": file, "code": code, "reason": f"Reason of {code}.", "remedy": f"Remedy of {code}."}

    rejected = [one("duplicate_across_splits", "a"), one("conflicting_labels", "b"), one("conflicting_labels", "c")]
    findings = report_on(balanced(), {"rejected": [*rejected, one("duplicate", "d")]}).findings
    assert [(found.code, found.severity, found.count) for found in findings] == [
        ("conflicting_labels", Severity.error, 2),
        ("duplicate_across_splits", Severity.warning, 1),
        ("duplicate", Severity.info, 1),
    ]
    assert "b, c" in findings[0].message
    assert findings[0].remedy == "Remedy of conflicting_labels."


def test_classes_with_few_images() -> None:
    few = [image("wasps", "train") for _ in range(3)] + [image("wasps", "val") for _ in range(6)]
    finding = only(report_on(balanced() + few, {}))
    assert (finding.code, finding.count, "wasps (3)" in finding.message) == ("few_train_images", 1, True)
    assert finding.images == [one.sha256 for one in few[:3]]
    few = [image("wasps", "train") for _ in range(12)] + [image("wasps", "val")]
    assert only(report_on(balanced() + few, {})).code == "few_val_images"


def test_imbalance() -> None:
    many = [image("ants") for _ in range(120)]
    finding = only(report_on(balanced() + many, {}))
    assert (finding.code, finding.count) == ("imbalance", 2)
    assert '"imbalance": "weights"' in finding.remedy
    assert report_on(balanced() + many[:100], {}).findings == []


def test_odd_shapes_and_how_many_are_named() -> None:
    small = [image(width=40, height=90) for _ in range(60)] + [image("bees", width=40, height=90) for _ in range(150)]
    finding = only(report_on(balanced() + small, {}))
    assert (finding.code, finding.count, len(finding.images)) == ("small_images", 210, 200)
    finding = only(report_on([*balanced(), image(width=1000, height=100)], {}))
    assert (finding.code, finding.count) == ("long_images", 1)
