"""Wrong labels are planted, a model is really trained on them, and the dataset's report finds them."""

import io
import zipfile
from typing import Any

from tests.support.images import jpeg, photo
from tests.support.services import Service

CLASSES = ("ants", "bees", "wasps")
WRONG = {"train": 2, "val": 2, "test": 2}  # of each class, beside those that are right
RIGHT = {"train": 16, "val": 12, "test": 12}


def planted() -> bytes:
    """An archive in which the names say which images lie in the folder of another class."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for offset, split in enumerate(RIGHT):
            for label, name in enumerate(CLASSES):
                for number in range(RIGHT[split] + WRONG[split]):
                    wrong = number >= RIGHT[split]
                    picture = photo((label + wrong) % len(CLASSES), 1000 * offset + number)
                    file.writestr(f"{split}/{name}/{number}-{'wrong' if wrong else 'right'}.jpg", jpeg(picture))
    return archive.getvalue()


def ended(api: Service, path: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = api.read.get(f"{path}?wait=60").json()
        if found["state"] not in ("processing", "queued", "running"):
            return found


def test_planted_mislabels_are_found_by_a_model_that_learnt_beside_them(working: Service) -> None:
    uploaded = working.write.post("/v1/datasets?name=insects", files={"file": ("insects.zip", planted())})
    assert uploaded.status_code == 202, uploaded.text
    assert ended(working, "/v1/datasets/insects")["state"] == "ready"
    before = working.read.get("/v1/datasets/insects/report").json()["findings"]
    assert "likely_mislabels" not in {one["code"] for one in before}

    asked = {"dataset": "insects", "input_size": 64, "epochs": 10, "batch_size": 16}
    job = working.write.post("/v1/jobs", json=asked).json()
    job = ended(working, f"/v1/jobs/{job['id']}")
    assert job["state"] == "succeeded", job

    names = {
        image["sha256"]: image["name"]
        for split in ("val", "test")
        for image in working.read.get(f"/v1/datasets/insects/images?split={split}&limit=200").json()["items"]
    }
    (found,) = [
        one
        for one in working.read.get("/v1/datasets/insects/report").json()["findings"]
        if one["code"] == "likely_mislabels"
    ]
    assert found["model_id"] == job["result"]["model_id"]
    assert set(found["images"]) <= names.keys()  # none that it learnt from
    right = [sha256 for sha256 in found["images"] if "wrong" not in names[sha256]]
    assert len(found["images"]) - len(right) >= 10, found  # of the twelve that are planted
    assert len(right) <= 4, found  # of the seventy-two others

    # The plan of the next job warns, and relabelling them settles it.
    planned = working.read.post("/v1/jobs:plan", json=asked).json()
    assert found in planned["findings"]
    for sha256 in found["images"]:
        label = names[sha256].split("/")[1]
        right_label = CLASSES[(CLASSES.index(label) + 1) % len(CLASSES)]
        working.write.patch(f"/v1/datasets/insects/images/{sha256}", json={"label": right_label})
    after = working.read.get("/v1/datasets/insects/report").json()["findings"]
    assert "likely_mislabels" not in {one["code"] for one in after}
