"""A dataset that changes: images looked at, added, relabelled, moved, taken out, and versions cut from it."""

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.vision.training.result import FitResult
from tests.support.calls import problem
from tests.support.images import folder_zip, gif, jpeg, photo, png
from tests.support.services import OpenService, Service

ARCHIVE = folder_zip({"ants": 5, "bees": 5}, split={"train": 4, "val": 2})
IMAGES = "/v1/datasets/pets/images"
VERSIONS = "/v1/datasets/pets/versions"


def images(api: Service, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.read.get(IMAGES, params={"limit": 200} | query).json()["items"]
    return found


def add(api: Service, *files: tuple[str, bytes], query: str = "", labels: Any = None) -> Any:
    data = {} if labels is None else {"labels": labels if isinstance(labels, str) else json.dumps(labels)}
    return api.write.post(f"{IMAGES}?{query}", files=[("file", file) for file in files], data=data)


@pytest.fixture
def pets(api: Service) -> Service:
    api.dataset("pets", ARCHIVE)
    return api


def test_images_are_listed_by_label_and_split_a_page_at_a_time(pets: Service) -> None:
    assert len(images(pets)) == 12
    assert {one["label"] for one in images(pets, label="ants")} == {"ants"}
    assert [(one["label"], one["split"]) for one in images(pets, label="bees", split="val")] == [("bees", "val")] * 2
    assert images(pets, label="wasps") == []
    first = pets.read.get(f"{IMAGES}?limit=7").json()
    second = pets.read.get(f"{IMAGES}?limit=7&cursor={first['next_cursor']}").json()
    assert [*first["items"], *second["items"]] == images(pets)
    assert second["next_cursor"] is None
    problem(pets.read.get(f"{IMAGES}?split=holdout"), 422, "invalid", "split")
    problem(pets.read.get(f"{IMAGES}?cursor=%00"), 422, "bad_cursor", "cursor")


def test_an_image_its_bytes_and_a_thumbnail(pets: Service) -> None:
    one = images(pets)[0]
    at = f"{IMAGES}/{one['sha256']}"
    assert pets.read.get(at).json() == one
    answer = pets.read.get(f"{at}/file")
    assert (answer.headers["content-type"], len(answer.content)) == ("image/jpeg", one["size"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    with Image.open(io.BytesIO(answer.content)) as whole:
        assert whole.size == (one["width"], one["height"]) == (64, 64)
    small = pets.read.get(f"{at}/thumbnail?size=16")
    with Image.open(io.BytesIO(small.content)) as image:
        assert (image.format, image.size) == ("JPEG", (16, 16))
    problem(pets.read.get(f"{at}/thumbnail?size=9999"), 422, "invalid", "size")
    problem(pets.read.get(f"{IMAGES}/{'0' * 64}/file"), 404, "not_found", remedy="/images")
    problem(pets.read.get(f"{IMAGES}/..%2f..%2fetc"), 404, "no_such_route")
    problem(pets.read.get(f"{IMAGES}/ABC"), 422, "invalid", "sha256")


def test_a_batch_is_answered_file_by_file(pets: Service) -> None:
    known = pets.read.get(f"{IMAGES}/{images(pets, label='ants')[0]['sha256']}/file").content
    files = [
        ("new.png", png(photo(0, 70))),
        ("known.jpg", known),
        ("known-as-bee.jpg", known),
        ("text.jpg", b"no image"),
        ("moving.gif", gif(photo(1, 71))),
        ("unlabelled.png", png(photo(1, 72))),
        ("odd.png", png(photo(1, 73))),
        ("new.png", png(photo(0, 70))),
    ]
    labels = [
        {"label": "ants", "split": "val", "metadata": {"site": "A"}},
        {"label": "ants"},
        {"label": "bees"},
        {"label": "ants"},
        {"label": "bees"},
        {},
        {"label": "bees", "split": "holdout"},
        {"label": "ants"},
    ]
    answer = add(pets, *files, labels=labels)
    assert answer.status_code == 207
    items = answer.json()["items"]
    assert [one["file"] for one in items] == [name for name, _ in files]
    assert [one["error"]["code"] if one["error"] else one["status"] for one in items] == [
        "added",
        "unchanged",
        "conflicting_labels",
        "not_an_image",
        "added",
        "no_label",
        "bad_split",
        "unchanged",
    ]
    assert all(one["error"]["detail"].endswith(".") for one in items if one["error"])
    added = pets.read.get(f"{IMAGES}/{items[0]['sha256']}").json()
    assert (added["label"], added["split"], added["metadata"]) == ("ants", "val", {"site": "A"})
    assert len(images(pets)) == 14
    answer = pets.read.get(f"{IMAGES}/{items[0]['sha256']}/file")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as kept:
        assert np.array_equal(np.asarray(kept), np.asarray(photo(0, 70)))


def test_one_label_may_count_for_all_files(pets: Service) -> None:
    answer = add(pets, ("a.png", png(photo(0, 80))), ("b.png", png(photo(0, 81))), query="label=wasps&split=test")
    assert (answer.status_code, {one["status"] for one in answer.json()["items"]}) == (200, {"added"})
    assert {(one["label"], one["split"], one["name"]) for one in images(pets, label="wasps")} == {
        ("wasps", "test", "a.png"),
        ("wasps", "test", "b.png"),
    }


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("{", "not JSON"),
        ({"label": "ants"}, "not a list"),
        ([{"name": "ants"}], "not a list"),
        ([{"label": "ants"}] * 2, "2 entries for 1 files"),
        ([{"label": ["ants"]}], "are text"),
        ([{"label": "ants", "metadata": 3}], "an object"),
        ('[{"label": "ants", "metadata": {"x": NaN}}]', "NaN"),
    ],
)
def test_labels_that_cannot_be_read_add_nothing(pets: Service, labels: Any, says: str) -> None:
    body = problem(add(pets, ("a.png", png(photo(0, 80))), labels=labels), 422, "bad_labels", "labels")
    assert says in body["detail"]
    assert len(images(pets)) == 12


def test_a_batch_that_is_no_batch(make_api: OpenService) -> None:
    api = make_api(max_batch_files=2, max_file_bytes=20_000)
    api.dataset("pets", ARCHIVE)
    small = ("a.png", png(photo(0, 80, (8, 8))))
    problem(api.write.post(IMAGES, data={"labels": "[]"}), 422, "no_image", "file")
    problem(api.write.post(IMAGES, content=b"x"), 422, "no_image", "file")
    problem(api.write.post(IMAGES, files={"image": small}), 422, "invalid", "image")
    problem(add(api, small, small, small, query="label=a"), 422, "too_many_files", "file", "GRAFT_MAX_BATCH_FILES")
    (item,) = add(api, ("large.png", png(photo(0, 80, (200, 200)))), query="label=ants").json()["items"]
    assert (item["error"]["code"], "GRAFT_MAX_FILE_BYTES" in item["error"]["detail"]) == ("file_too_large", True)
    waiting = api.write.post("/v1/datasets?name=later", content=ARCHIVE).json()["id"]
    refused = api.write.post(f"/v1/datasets/{waiting}/images?label=ants", files={"file": small})
    problem(refused, 409, "dataset_not_ready")
    problem(api.write.post("/v1/datasets/none/images", files={"file": small}), 404, "not_found")


def test_relabelling_moving_and_taking_out_show_in_the_next_version_alone(pets: Service) -> None:
    first = pets.read.get("/v1/datasets/pets").json()["version"]
    again = pets.write.post(VERSIONS)
    assert (again.status_code, again.json()["number"]) == (200, 1)

    ant, other = images(pets, label="ants", split="train")[:2]
    bee = images(pets, label="bees", split="train")[0]
    changed = pets.write.patch(f"{IMAGES}/{ant['sha256']}", json={"label": "bees", "metadata": {"by": "hand"}})
    assert changed.json() == {**ant, "label": "bees", "metadata": {"by": "hand"}}
    assert pets.write.patch(f"{IMAGES}/{other['sha256']}", json={"split": "val"}).json()["split"] == "val"
    assert pets.write.delete(f"{IMAGES}/{bee['sha256']}").status_code == 204
    problem(pets.read.get(f"{IMAGES}/{bee['sha256']}"), 404, "not_found")

    cut = pets.write.post(VERSIONS)
    assert cut.status_code == 201
    second = cut.json()
    assert cut.headers["location"].endswith("/versions/2")
    assert second["counts"] == {"train": {"ants": 2, "bees": 4}, "val": {"ants": 3, "bees": 2}}
    assert second["sha256"] != first["sha256"]
    assert pets.read.get("/v1/datasets/pets").json()["version"] == second
    assert [one["number"] for one in pets.read.get(VERSIONS).json()["items"]] == [2, 1]
    assert pets.read.get(f"{VERSIONS}/1").json() == first
    problem(pets.read.get(f"{VERSIONS}/3"), 404, "not_found", remedy="/versions")

    # Back as it was: the same content has the same hash, whatever happened in between.
    pets.write.patch(f"{IMAGES}/{ant['sha256']}", json={"label": "ants", "metadata": None})
    pets.write.patch(f"{IMAGES}/{other['sha256']}", json={"split": "train"})
    archive = zipfile.ZipFile(io.BytesIO(pets.read.get(f"{VERSIONS}/1/archive").content))
    (name,) = [name for name in archive.namelist() if bee["sha256"] in name]
    add(pets, ("bee.jpg", archive.read(name)), query="label=bees")
    third = pets.write.post(VERSIONS).json()
    assert (third["number"], third["sha256"]) == (3, first["sha256"])


def test_a_change_that_cannot_be(pets: Service) -> None:
    at = f"{IMAGES}/{images(pets)[0]['sha256']}"
    problem(pets.write.patch(at, json={"label": ""}), 422, "invalid", "label")
    problem(pets.write.patch(at, json={"label": "a\u0000"}), 422, "bad_label", "label")
    problem(pets.write.patch(at, json={"split": "holdout"}), 422, "invalid", "split")
    problem(pets.write.patch(at, json={"colour": "red"}), 422, "invalid", "colour")
    problem(pets.write.patch(at, json={"metadata": {"x": "y" * 20_000}}), 422, "metadata_too_large", "metadata")
    problem(pets.write.patch(at, json={"metadata": {"Label": "y"}}), 422, "bad_metadata", "metadata")
    assert pets.write.patch(at, json={}).json() == pets.read.get(at).json()


def test_a_version_is_cut_of_nothing_that_cannot_be_trained_on(pets: Service) -> None:
    for one in images(pets, split="val"):
        pets.write.patch(f"{IMAGES}/{one['sha256']}", json={"split": "train"})
    problem(pets.write.post(VERSIONS), 422, "no_val_split", "split", remedy="PATCH")
    for one in images(pets, label="bees")[1:]:
        pets.write.delete(f"{IMAGES}/{one['sha256']}")
    problem(pets.write.post(VERSIONS), 422, "class_too_small", "bees")
    assert len(pets.read.get(VERSIONS).json()["items"]) == 1


def test_a_downloaded_version_uploads_to_the_same_hash(pets: Service) -> None:
    one, two = images(pets, label="ants", split="train")[:2]
    said = {"label": "ants/red: the best?", "metadata": {"class": "x", "boxes": [{"box": [1.0, 2.5]}], "site": "é"}}
    for image in (one, two):
        assert pets.write.patch(f"{IMAGES}/{image['sha256']}", json=said | {"split": image["split"]}).status_code == 200
    add(pets, ("a.png", png(photo(0, 90).convert("L"))), ("b.gif", gif(photo(1, 91))), query="label=bees&split=test")
    version = pets.write.post(VERSIONS).json()
    answer = pets.read.get(f"{VERSIONS}/{version['number']}/archive")
    assert answer.headers["content-type"] == "application/zip"
    assert "pets-v2.zip" in answer.headers["content-disposition"]
    assert pets.read.get(f"{VERSIONS}/{version['number']}/archive").content == answer.content
    copy = pets.dataset("copy", answer.content)
    again = pets.read.get(f"/v1/datasets/{copy}").json()
    assert (again["version"]["sha256"], again["version"]["counts"]) == (version["sha256"], version["counts"])
    assert again["report"]["rejected"] == []


def test_lineage_tells_versions_and_models(pets: Service, trained: FitResult) -> None:
    model = pets.model(trained)
    one = images(pets, label="ants", split="train")[0]["sha256"]
    pets.write.delete(f"{IMAGES}/{one}")
    pets.write.post(VERSIONS)
    told = pets.read.get(f"/v1/images/{one}/lineage").json()
    assert [(version["dataset"], version["number"], version["deleted"]) for version in told["versions"]] == [
        ("pets", 1, False)
    ]
    assert [found["id"] for found in told["models"]] == [model]
    pets.write.delete("/v1/datasets/pets")
    assert [one["deleted"] for one in pets.read.get(f"/v1/images/{one}/lineage").json()["versions"]] == [True]
    problem(pets.read.get(f"/v1/images/{'0' * 64}/lineage"), 404, "not_found")


def test_the_report_names_images_that_look_the_same_and_files_left_out(api: Service) -> None:
    def smooth(seed: int) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC)

    files = {f"train/{label}/{n}.png": png(smooth(20 * at + n)) for at, label in enumerate("ab") for n in range(10)}
    files |= {f"val/{label}/{n}.png": png(smooth(20 * at + n + 10)) for at, label in enumerate("ab") for n in range(5)}
    copied = {"train/b/copy.jpg": jpeg(smooth(0), quality=60), "val/a/copy.jpg": jpeg(smooth(1), quality=60)}
    api.dataset("pets", folder_zip(files | copied | {"val/a/text.png": b"no image", "val/a/1.jpg": b""}))
    report = api.read.get("/v1/datasets/pets/report").json()
    assert report["counts"] == {"train": {"a": 10, "b": 11}, "val": {"a": 6, "b": 5}}
    assert [(one["code"], one["severity"], one["count"]) for one in report["findings"]] == [
        ("near_duplicates_under_two_labels", "error", 1),
        ("near_duplicates_across_splits", "warning", 1),
        ("not_an_image", "warning", 1),
        ("empty_file", "warning", 1),
    ]
    named = {one["name"]: one["sha256"] for one in images(api)}
    assert set(report["findings"][0]["images"]) == {named["train/a/0.png"], named["train/b/copy.jpg"]}
    # What the finding asks for is done, and it is gone.
    api.write.delete(f"{IMAGES}/{named['train/b/copy.jpg']}")
    api.write.patch(f"{IMAGES}/{named['val/a/copy.jpg']}", json={"split": "train"})
    codes = {one["code"] for one in api.read.get("/v1/datasets/pets/report").json()["findings"]}
    assert codes == {"near_duplicates", "not_an_image", "empty_file"}
    waiting = api.write.post("/v1/datasets?name=later", content=ARCHIVE).json()["id"]
    problem(api.read.get(f"/v1/datasets/{waiting}/report"), 409, "dataset_not_ready")
