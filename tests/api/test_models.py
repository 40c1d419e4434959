"""Models over HTTP: looked at, listed, asked, deleted."""

from typing import Any

import pytest

from app.vision.run import FitResult
from tests.api.calls import CLASSES, Api, problem
from tests.images import gif, jpeg, photo, png

PICTURE = jpeg(photo(0, 50))


def predict(api: Api, model: str, query: str = "", **sent: Any) -> Any:
    return api.predict.post(f"/v1/models/{model}/predict{query}", **sent)


def test_a_model_says_how_good_it_is(api: Api, model_id: str, trained: FitResult) -> None:
    model = api.read.get(f"/v1/models/{model_id}").json()
    assert (model["name"], model["backbone"], model["classes"]) == ("pets", "resnet18-tiny64", list(CLASSES))
    job = api.read.get(f"/v1/jobs/{model['job_id']}").json()
    assert job["result"]["model_id"] == model_id
    assert job["dataset_version_id"] == model["dataset_version_id"]
    assert model["preprocessing"] == trained.preprocessing.to_dict()
    assert model["artefact_size"] == trained.model_path.stat().st_size

    assert set(model["metrics"]) == {"val"}
    scores = model["metrics"]["val"]
    confusion = scores["confusion"]
    assert [len(row) for row in confusion] == [2, 2]
    assert sum(map(sum, confusion)) == scores["samples"] == 8
    assert scores["accuracy"] == (confusion[0][0] + confusion[1][1]) / 8
    assert [one["class"] for one in scores["per_class"]] == list(CLASSES)
    for row, one in enumerate(scores["per_class"]):
        hits, predicted = confusion[row][row], confusion[0][row] + confusion[1][row]
        precision, recall = hits / predicted if predicted else 0.0, hits / sum(confusion[row])
        assert one["support"] == sum(confusion[row]) == 4
        assert one["precision"] == pytest.approx(precision)
        assert one["recall"] == pytest.approx(recall)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert one["f1"] == pytest.approx(f1)
    for mean in ("macro", "weighted"):
        for score in ("precision", "recall", "f1"):
            assert 0 <= scores[f"{mean}_{score}"] <= 1
    assert scores["log_loss"] > 0


def test_models_are_listed_newest_first_by_name_or_all(api: Api, trained: FitResult) -> None:
    made = [api.model(trained, name) for name in ("pets", "cars", "pets")]
    assert [item["id"] for item in api.read.get("/v1/models").json()["items"]] == made[::-1]
    assert [item["id"] for item in api.read.get("/v1/models?name=pets").json()["items"]] == [made[2], made[0]]
    first = api.read.get("/v1/models?limit=2").json()
    second = api.read.get("/v1/models", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_a_deleted_model_is_gone_and_its_job_stays(api: Api, model_id: str) -> None:
    job = api.read.get(f"/v1/models/{model_id}").json()["job_id"]
    assert api.write.delete(f"/v1/models/{model_id}").status_code == 204
    problem(api.read.get(f"/v1/models/{model_id}"), 404, "not_found", remedy="GET /v1/models")
    problem(api.write.delete(f"/v1/models/{model_id}"), 404, "not_found")
    assert api.counts()["models"] == 0
    assert api.read.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PICTURE, "image/jpeg"),
        (png(photo(0, 50)), "image/png"),
        (gif(photo(0, 50)), "image/gif"),
        (PICTURE, "image/png"),  # told by its content
        (PICTURE, "application/octet-stream"),
        (PICTURE, "IMAGE/JPEG; quality=good"),
        (PICTURE, ""),
    ],
)
def test_an_image_as_the_body_is_classified(api: Api, model_id: str, content: bytes, kind: str) -> None:
    response = predict(api, model_id, content=content, headers={"Content-Type": kind} if kind else {})
    assert response.status_code == 200
    body = response.json()
    assert body["model_id"] == model_id
    (item,) = body["items"]
    assert (item["file"], item["status"], item["error"]) == (None, "ok", None)
    assert {one["label"] for one in item["predictions"]} == set(CLASSES)
    probabilities = [one["probability"] for one in item["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)


def test_several_files_are_answered_in_their_order(api: Api, model_id: str) -> None:
    pictures = [jpeg(photo(n % 2, 60 + n)) for n in range(5)]
    files = [("file", (f"{n}.jpg", picture)) for n, picture in enumerate(pictures)]
    response = predict(api, model_id, files=files)
    assert response.status_code == 200
    items = response.json()["items"]
    assert [item["file"] for item in items] == [f"{n}.jpg" for n in range(5)]
    for item, picture in zip(items, pictures, strict=True):
        (alone,) = predict(api, model_id, content=picture).json()["items"]
        assert [one["label"] for one in item["predictions"]] == [one["label"] for one in alone["predictions"]]
        assert [one["probability"] for one in item["predictions"]] == pytest.approx(
            [one["probability"] for one in alone["predictions"]], abs=1e-5
        )
    assert len({str(item["predictions"]) for item in items}) == 5  # each is an answer of its own


def test_top_k_bounds_the_classes_that_are_named(api: Api, model_id: str) -> None:
    full = predict(api, model_id, content=PICTURE).json()["items"][0]["predictions"]
    for query, named in (("?top_k=1", 1), ("?top_k=2", 2), ("?top_k=1000", 2)):
        assert predict(api, model_id, query, content=PICTURE).json()["items"][0]["predictions"] == full[:named]


def test_predicting_stores_nothing(api: Api, model_id: str) -> None:
    before = sorted(blob.sha256 for blob in api.stage.store.list())
    predict(api, model_id, content=PICTURE)
    predict(api, model_id, files=[("file", ("a.jpg", PICTURE)), ("file", ("b.jpg", PICTURE))])
    assert sorted(blob.sha256 for blob in api.stage.store.list()) == before
    assert api.staged() == []


def test_a_damaged_model_is_an_error_and_no_wrong_answer(api: Api, model_id: str) -> None:
    sha256 = api.read.get(f"/v1/models/{model_id}").json()["artefact_sha256"]
    path = api.stage.settings.home / "blobs" / sha256[:2] / sha256[2:4] / sha256
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :])
    problem(predict(api, model_id, content=PICTURE), 500, "blob_damaged", remedy="backup")
    path.write_bytes(whole)
    assert predict(api, model_id, content=PICTURE).status_code == 200
