"""From an archive to verified blobs and a frozen manifest, with a real store and real images."""

import io
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from app.core.errors import Invalid, Unavailable
from app.datasets.formats.archive import ArchiveLimits
from app.datasets.ingestion import Ingested, UnusableUpload, ingest
from app.datasets.intake.intake import IntakeLimits, take_in_all
from app.datasets.manifest import read_manifest
from app.storage import Blob, FilesystemStore
from tests.support.images import folder, folder_tar, folder_zip, gif, jpeg, photo, png

PETS = {"ants": 10, "bees": 10}
Files = Mapping[str, bytes]


def pack(files: Files, order: Iterable[str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in order or files:
            archive.writestr(name, files[name])
    return buffer.getvalue()


class Intake:
    """Reads uploads into a store below `folder`, and keeps the progress they reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FilesystemStore(folder / "blobs")
        self.progress: list[float] = []

    def __call__(
        self,
        archive: bytes,
        *,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 0,
        archive_limits: ArchiveLimits = ArchiveLimits(),
        intake_limits: IntakeLimits = IntakeLimits(),
    ) -> Ingested:
        path = self.folder / "upload"
        path.write_bytes(archive)
        return ingest(
            path,
            self.store,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            archive_limits=archive_limits,
            take_in=partial(take_in_all, limits=intake_limits),
            progress=self.progress.append,
        )


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path)


def splits(found: Ingested) -> dict[str, str]:
    return {image["name"]: image["split"] for image in found.images}


def rejected(found: Ingested) -> dict[str, str]:
    return {one["file"]: one["code"] for one in found.report["rejected"]}


def test_every_image_is_kept_and_every_blob_is_there(intake: Intake) -> None:
    found = intake(folder_zip(PETS, size=(40, 30)))
    assert (found.classes, found.report["files"], found.report["accepted"]) == (["ants", "bees"], 20, 20)
    assert found.report["rejected"] == found.report["noted"] == []
    assert {(image["width"], image["height"]) for image in found.images} == {(40, 30)}
    for image in found.images:
        assert len(intake.store.read(image["sha256"])) == image["size"]
        assert image["label"] == image["name"].split("/")[0]
    manifest = read_manifest(intake.store.read(found.manifest_sha256))
    assert {(item.sha256, item.label, item.split) for item in manifest.items} == {
        (image["sha256"], image["label"], image["split"]) for image in found.images
    }
    assert len(list(intake.store.list())) == 21


def test_a_split_is_drawn_for_each_class(intake: Intake) -> None:
    found = intake(folder_zip(PETS), val_fraction=0.2, test_fraction=0.3)
    assert found.counts == {
        "train": {"ants": 5, "bees": 5},
        "val": {"ants": 2, "bees": 2},
        "test": {"ants": 3, "bees": 3},
    }
    assert list(found.counts) == ["train", "val", "test"]


def test_the_seed_draws_the_split(intake: Intake) -> None:
    archive = folder_zip(PETS)
    first, same, other = intake(archive, seed=1), intake(archive, seed=1), intake(archive, seed=2)
    assert first == same
    assert splits(first) != splits(other)
    assert first.counts == other.counts
    assert first.manifest_sha256 != other.manifest_sha256


def test_a_split_that_the_upload_brings_stays(intake: Intake) -> None:
    archive = folder_zip(PETS, split={"train": 4, "validation": 2, "test": 3})
    found = intake(archive, val_fraction=0.5, test_fraction=0.4)
    assert found.counts == {split: {"ants": n, "bees": n} for split, n in (("train", 4), ("val", 2), ("test", 3))}
    assert all(name.startswith(split) or split == "val" for name, split in splits(found).items())


def test_without_val_images_some_of_train_validate(intake: Intake) -> None:
    found = intake(folder_zip(PETS, split={"train": 10, "test": 3}), val_fraction=0.3)
    assert found.counts == {split: {"ants": n, "bees": n} for split, n in (("train", 7), ("val", 3), ("test", 3))}
    assert {name.split("/")[0] for name, split in splits(found).items() if split == "test"} == {"test"}


def test_the_same_content_has_the_same_hash_however_it_is_packed(intake: Intake) -> None:
    files = folder(PETS)
    archives = [
        pack(files),
        pack(files, sorted(files, reverse=True)),
        folder_zip(PETS),
        folder_tar(PETS),
        folder_tar(PETS, compress=False),
        folder_zip(PETS, top="photos/of-2026"),
        pack({name.replace("ants/", "ants/more/x"): content for name, content in files.items()}),
    ]
    found = [intake(archive) for archive in archives]
    assert len({one.manifest_sha256 for one in found}) == 1
    assert len({(one["sha256"], one["split"]) for many in found for one in many.images}) == 20
    changed = intake(pack({**files, "ants/0000.jpg": jpeg(photo(0, 999))}))
    assert changed.manifest_sha256 != found[0].manifest_sha256


def test_duplicates_leave_one_copy_whatever_their_order(intake: Intake) -> None:
    files = folder({"ants": 5, "bees": 5})
    files |= {"ants/copy.jpg": files["ants/0003.jpg"], "ants/another.jpg": files["ants/0003.jpg"]}
    first, second = intake(pack(files, sorted(files))), intake(pack(files, sorted(files, reverse=True)))
    assert rejected(first) == rejected(second) == {"ants/copy.jpg": "duplicate", "ants/another.jpg": "duplicate"}
    assert (
        first.manifest_sha256 == second.manifest_sha256 == intake(pack(folder({"ants": 5, "bees": 5}))).manifest_sha256
    )
    assert (first.report["files"], first.report["accepted"], first.report["rejected_count"]) == (12, 10, 2)
    assert {one["reason"] for one in first.report["rejected"]} == {"The same image as ants/0003.jpg."}
    assert all(one["remedy"] for one in first.report["rejected"])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_copy_in_another_split_is_left_out_there(intake: Intake, reverse: bool) -> None:
    files = folder({"ants": 4, "bees": 4}, split=["train", "val"])
    leaked = files["train/ants/0001.jpg"]
    files |= {"val/ants/leak.jpg": leaked, "test/ants/leak.jpg": leaked}
    found = intake(pack(files, sorted(files, reverse=reverse)))
    assert rejected(found) == {
        "val/ants/leak.jpg": "duplicate_across_splits",
        "test/ants/leak.jpg": "duplicate_across_splits",
    }
    assert splits(found)["train/ants/0001.jpg"] == "train"
    assert len({image["sha256"] for image in found.images}) == len(found.images) == 16


def test_an_image_under_two_labels_is_left_out_everywhere(intake: Intake) -> None:
    files = folder({"ants": 4, "bees": 4})
    files |= {"bees/is-it.jpg": files["ants/0000.jpg"], "bees/again.jpg": files["ants/0000.jpg"]}
    found = intake(pack(files))
    assert rejected(found) == dict.fromkeys(["ants/0000.jpg", "bees/is-it.jpg", "bees/again.jpg"], "conflicting_labels")
    assert "ants, bees" in found.report["rejected"][0]["reason"]
    assert Counter(image["label"] for image in found.images) == {"ants": 3, "bees": 4}


def test_each_bad_file_is_reported_with_a_reason_and_a_remedy(intake: Intake) -> None:
    whole = jpeg(photo(1, 100))
    files = folder({"ants": 4, "bees": 4})
    files |= {
        "ants/notes.jpg": b"Dear diary, no ants today.\n",
        "ants/cut.jpg": whole[: len(whole) // 2],
        "ants/none.png": b"",
        "bees/readme.txt": b"hello",
        "loose.jpg": whole,
        "bees/line.png": png(photo(1, 101, (50, 1))),
        "bees/moving.gif": gif(photo(1, 102)),
        "bees/really-a.jpg": png(photo(1, 103)),
        "bees/.DS_Store": b"litter",
    }
    found = intake(pack(files))
    assert rejected(found) == {
        "ants/notes.jpg": "not_an_image",
        "ants/cut.jpg": "truncated_image",
        "ants/none.png": "empty_file",
        "bees/readme.txt": "not_an_image",
        "loose.jpg": "no_class_folder",
        "bees/line.png": "image_too_small",
    }
    assert all(one["reason"] and one["remedy"] for one in found.report["rejected"])
    assert {one["file"]: one["code"] for one in found.report["noted"]} == {"bees/really-a.jpg": "format_differs"}
    assert {"bees/moving.gif", "bees/really-a.jpg"} <= set(splits(found))
    report = found.report
    assert (report["files"], report["accepted"], report["rejected_count"], report["noted_count"]) == (16, 10, 6, 1)


@pytest.mark.parametrize("make", [folder_zip, folder_tar])
def test_a_member_that_is_too_large_is_left_out_alone(intake: Intake, make: object) -> None:
    small = folder({"ants": 4, "bees": 4}, size=(16, 16))
    limit = max(map(len, small.values()))
    large = {"ants/large.jpg": jpeg(photo(0, 50, (300, 300)), quality=95)}
    content = {**small, **large}
    archive = make(content)  # type: ignore[operator]
    found = intake(archive, archive_limits=ArchiveLimits(max_file_bytes=limit))
    assert rejected(found) == {"ants/large.jpg": "file_too_large"}
    (entry,) = found.report["rejected"]
    assert str(limit) in entry["reason"]
    assert "GRAFT_MAX_FILE_BYTES" in entry["remedy"]
    assert found.report["accepted"] == 8
    assert intake.progress[-1] == 1.0


def test_an_image_with_too_many_pixels_is_left_out_alone(intake: Intake) -> None:
    files = folder({"ants": 4, "bees": 4}) | {"ants/vast.jpg": jpeg(photo(0, 9, (100, 100)))}
    found = intake(pack(files), intake_limits=IntakeLimits(max_pixels=64 * 64))
    assert rejected(found) == {"ants/vast.jpg": "image_too_large"}


def test_progress_grows_to_one(intake: Intake) -> None:
    files = folder({"ants": 5, "bees": 5}) | {"ants/bad.jpg": b"text", "bees/readme.txt": b"not placed"}
    intake(pack(files))
    assert intake.progress == pytest.approx([(done + 1) / 11 for done in range(11)])
    assert intake.progress[-1] == 1.0


def test_too_little_that_is_left_cannot_be_used(intake: Intake) -> None:
    files = folder({"ants": 4, "bees": 2}) | {"bees/0001.jpg": b"text"}
    with pytest.raises(UnusableUpload) as caught:
        intake(pack(files))
    cause = caught.value.cause
    assert {error.field: error.code for error in cause.errors} == {"bees": "class_too_small"}
    assert str(caught.value) == cause.detail
    report = caught.value.report
    assert (report.files, report.accepted, report.rejected_count) == (6, 5, 1)
    assert report.rejected[0]["file"] == "bees/0001.jpg"


def test_nothing_that_is_left_cannot_be_used(intake: Intake) -> None:
    with pytest.raises(UnusableUpload, match="No usable image") as caught:
        intake(pack({"ants/1.jpg": b"text", "bees/1.jpg": b"text", "bees/2.jpg": b"more text"}))
    assert caught.value.report.rejected_count == 3


def test_a_class_that_goes_whole_leaves_the_others(intake: Intake) -> None:
    files = folder({"ants": 3, "bees": 3}) | {"wasps/1.jpg": b"text", "wasps/2.jpg": b"text"}
    found = intake(pack(files))
    assert found.classes == ["ants", "bees"]
    assert sorted(rejected(found)) == ["wasps/1.jpg", "wasps/2.jpg"]


def test_the_lists_of_a_report_are_bounded_and_its_counts_are_not(intake: Intake) -> None:
    files = folder({"ants": 2, "bees": 2}) | {f"ants/{number}.txt": b"" for number in range(1200)}
    report = intake(pack(files)).report
    assert (len(report["rejected"]), report["rejected_count"], report["files"]) == (1000, 1200, 1204)


def test_a_damaged_archive_is_refused_whole(intake: Intake) -> None:
    archive = folder_tar(PETS, compress=False)
    with pytest.raises(Invalid) as caught:
        intake(archive[: len(archive) // 2])
    assert caught.value.code == "damaged_archive"
    assert list(intake.store.list()) == []


def test_a_store_that_fails_is_not_an_images_fault(intake: Intake) -> None:
    (intake.folder / "blobs").write_bytes(b"in the way")
    with pytest.raises(Unavailable):
        intake(folder_zip(PETS))


def test_images_wait_for_the_disk_together(intake: Intake) -> None:
    together: list[int] = []

    class Counting(FilesystemStore):
        def put_many(self, contents: Sequence[bytes]) -> Sequence[Blob]:
            together.append(len(contents))
            return super().put_many(contents)

    intake.store = Counting(intake.folder / "blobs")
    found = intake(folder_zip({"ants": 8, "bees": 8}))
    assert together == [16]
    assert [image["name"] for image in found.images] == sorted(image["name"] for image in found.images)
    assert all(intake.store.exists(image["sha256"]) for image in found.images)


def test_hostile_names_do_not_leave_the_archive(intake: Intake) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (folder(PETS) | {"../../outside.jpg": jpeg(photo(0, 1))}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(Invalid) as caught:
        intake(buffer.getvalue())
    assert caught.value.code == "unsafe_name"
    assert list(intake.store.list()) == []


def test_a_file_of_labels_says_label_split_and_metadata(intake: Intake) -> None:
    files = {name.replace("/", "-"): content for name, content in folder({"ants": 4, "bees": 4}).items()}
    lines = ["path,label,split,site"]
    for number, name in enumerate(files):
        lines.append(f"{name},{name.split('-')[0]},{'train' if number % 4 else 'val'},{'AB'[number % 2]}")
    found = intake(pack(files | {"labels.csv": "\n".join(lines).encode()}))
    assert found.counts == {"train": {"ants": 3, "bees": 3}, "val": {"ants": 1, "bees": 1}}
    assert {image["extra"]["site"] for image in found.images} == {"A", "B"}
    manifest = read_manifest(intake.store.read(found.manifest_sha256))
    assert {item.sha256: item.metadata for item in manifest.items} == {
        image["sha256"]: image["extra"] for image in found.images
    }
    with pytest.raises(UnusableUpload) as caught:
        intake(pack(files | {"labels.csv": b"path,label\nants-0000.jpg,ants\n"}))
    assert [error.code for error in caught.value.cause.errors] == ["single_class", "class_too_small"]
    assert caught.value.report.rejected[0]["code"] == "not_listed"
