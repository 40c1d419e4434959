"""Models over HTTP: looked at, listed, asked, deleted."""

import base64
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from app.api.predict_path.kept import PredictPath, Shortcuts
from app.auth.schemas import Scope
from app.core.errors import Unavailable
from app.datasets.orm import Dataset, DatasetImage
from app.predictions.schemas import PredictOptions
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES, Caller, is_uuid, problem
from tests.support.images import folder_zip, gif, jpeg, photo, png
from tests.support.services import OpenService, Service, open_service

PICTURE = jpeg(photo(0, 50))


def predict(api: Service, model: str, query: str = "", **sent: Any) -> Any:
    return api.predict.post(f"/v1/models/{model}/predict{query}", **sent)


def test_a_model_says_how_good_it_is(api: Service, model_id: str, trained: FitResult) -> None:
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


def test_models_are_listed_newest_first_by_name_or_all(api: Service, trained: FitResult) -> None:
    made = [api.model(trained, name) for name in ("pets", "cars", "pets")]
    assert [item["id"] for item in api.read.get("/v1/models").json()["items"]] == made[::-1]
    assert [item["id"] for item in api.read.get("/v1/models?name=pets").json()["items"]] == [made[2], made[0]]
    first = api.read.get("/v1/models?limit=2").json()
    second = api.read.get("/v1/models", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_a_deleted_model_is_gone_and_its_job_stays(api: Service, model_id: str) -> None:
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
def test_an_image_as_the_body_is_classified(api: Service, model_id: str, content: bytes, kind: str) -> None:
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


def test_several_files_are_answered_in_their_order(api: Service, model_id: str) -> None:
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


def test_top_k_bounds_the_classes_that_are_named(api: Service, model_id: str) -> None:
    full = predict(api, model_id, content=PICTURE).json()["items"][0]["predictions"]
    for query, named in (("?top_k=1", 1), ("?top_k=2", 2), ("?top_k=1000", 2)):
        assert predict(api, model_id, query, content=PICTURE).json()["items"][0]["predictions"] == full[:named]


def test_predicting_stores_nothing(api: Service, model_id: str) -> None:
    before = sorted(blob.sha256 for blob in api.stage.store.list())
    predict(api, model_id, content=PICTURE)
    predict(api, model_id, files=[("file", ("a.jpg", PICTURE)), ("file", ("b.jpg", PICTURE))])
    assert sorted(blob.sha256 for blob in api.stage.store.list()) == before
    assert api.scratch() == []


def test_a_damaged_model_is_an_error_and_no_wrong_answer(make_api: OpenService, trained: FitResult) -> None:
    api = make_api(model_retry_seconds=0.5)
    model_id = api.model(trained)
    model = api.read.get(f"/v1/models/{model_id}").json()
    assert model["serving"]["state"] == "unloaded"
    sha256 = model["artefact_sha256"]
    path = api.stage.settings.home / "blobs" / sha256[:2] / sha256
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :])
    problem(predict(api, model_id, content=PICTURE), 500, "blob_damaged", remedy="backup")
    serving = api.read.get(f"/v1/models/{model_id}").json()["serving"]
    assert serving["state"] == "unhealthy"
    assert "damaged" in serving["detail"]
    path.write_bytes(whole)
    refused = predict(api, model_id, content=PICTURE)
    problem(refused, 503, "blob_damaged", remedy="backup")  # not looked at again at once
    assert refused.headers["retry-after"] == "1"
    time.sleep(0.6)
    assert predict(api, model_id, content=PICTURE).status_code == 200
    serving = api.read.get(f"/v1/models/{model_id}").json()["serving"]
    assert (serving["state"], serving["detail"]) == ("ready", None)
    assert serving["bytes"] > 1_000_000


def test_options_say_which_classes_are_named(api: Service, model_id: str) -> None:
    (full,) = predict(api, model_id, "?probabilities=all", content=PICTURE).json()["items"]
    assert full["probabilities"] == {one["label"]: one["probability"] for one in full["predictions"]}
    (one,) = predict(api, model_id, "?classes=bees", content=PICTURE).json()["items"]
    assert one["predictions"] == [{"label": "bees", "probability": full["probabilities"]["bees"]}]
    (none,) = predict(api, model_id, "?threshold=0.999999&classes=bees", content=PICTURE).json()["items"]
    assert none["predictions"] == []


def test_images_come_as_json_too(api: Service, model_id: str) -> None:
    """In base64, by the id of a stored image, by its hash: the answers are those of the same bytes."""
    with api.stage.database.reading() as session:
        stored = session.scalars(select(DatasetImage).order_by(DatasetImage.id)).first()
        assert stored is not None
    kept = api.stage.store.read(stored.sha256)
    (expected,) = predict(api, model_id, "?top_k=1", content=kept).json()["items"]
    images = [
        {"base64": base64.b64encode(kept).decode(), "name": "a.jpg"},
        {"id": str(stored.id)},
        {"id": stored.sha256},
        {"id": "nothing"},
    ]
    response = predict(api, model_id, "?top_k=2", json={"images": images, "top_k": 1})  # the body's word counts
    assert response.status_code == 207
    *good, bad = response.json()["items"]
    assert [one["file"] for one in good] == ["a.jpg", str(stored.id), stored.sha256]
    for one in good:
        assert [best["label"] for best in one["predictions"]] == [best["label"] for best in expected["predictions"]]
        assert one["predictions"][0]["probability"] == pytest.approx(
            expected["predictions"][0]["probability"], abs=1e-5
        )
    assert (bad["file"], bad["error"]["code"]) == ("nothing", "unknown_image")


def test_a_stored_image_of_another_workspace_is_not_there(api: Service, model_id: str) -> None:
    stranger = api.stage.workspace()
    api.stage.dataset(stranger, "theirs", folder_zip({"x": 4, "y": 4}, size=(40, 40)))
    with api.stage.database.reading() as session:
        theirs = session.scalars(
            select(DatasetImage).join(Dataset).where(Dataset.workspace_id == stranger.id).limit(1)
        ).one()
    for reference in (str(theirs.id), theirs.sha256):
        problem(predict(api, model_id, json={"images": [{"id": reference}]}), 422, "unknown_image", reference)


def test_every_answer_has_a_request_id_and_predictions_say_what_took_how_long(api: Service, model_id: str) -> None:
    mine = predict(api, model_id, content=PICTURE, headers={"X-Request-Id": "order-7"})
    assert mine.headers["x-request-id"] == "order-7"
    parts = dict(part.split(";dur=") for part in mine.headers["server-timing"].split(", "))
    assert list(parts) == ["queue", "decode", "model"]
    assert float(parts["decode"]) > 0
    assert float(parts["model"]) > 0
    refused = predict(api, model_id, content=b"text", headers={"X-Request-Id": "two words"})
    assert is_uuid(refused.headers["x-request-id"])
    assert "model;dur=0.00" in refused.headers["server-timing"]
    other = api.read.get("/v1/models")
    assert is_uuid(other.headers["x-request-id"])
    assert "server-timing" not in other.headers


def test_an_alias_names_a_model_and_can_be_moved(api: Service, trained: FitResult) -> None:
    old, new = api.model(trained), api.model(trained)
    assert predict(api, "pets", content=PICTURE).json()["model_id"] == new  # the newest of the name
    problem(predict(api, "pets@production", content=PICTURE), 404, "not_found", remedy="alias")
    for model in (old, new, old):
        put = api.write("PUT", "/v1/models/pets/aliases/production", json={"model": model})
        assert (put.status_code, put.json()["model_id"]) == (200, model)
        assert predict(api, "pets@production", content=PICTURE).json()["model_id"] == model
    api.write("PUT", "/v1/models/pets/aliases/beta", json={"model": "pets@production"})
    listed = api.read.get("/v1/models/pets/aliases").json()["items"]
    assert [(one["alias"], one["model_id"]) for one in listed] == [("beta", old), ("production", old)]
    assert api.read.get("/v1/models/pets@beta").json()["aliases"] == ["beta", "production"]
    assert api.read.get(f"/v1/models/{new}").json()["aliases"] == []

    assert api.write.delete("/v1/models/pets/aliases/beta").status_code == 204
    problem(api.write.delete("/v1/models/pets/aliases/beta"), 404, "not_found", remedy="/v1/models/pets/aliases")
    assert api.write.delete(f"/v1/models/{old}").status_code == 204  # and its alias with it
    problem(api.read.get("/v1/models/pets@production"), 404, "not_found")


def test_an_alias_stays_within_its_name(api: Service, trained: FitResult) -> None:
    api.model(trained)
    cars = api.model(trained, "cars")
    body = {"model": cars}
    problem(api.write("PUT", "/v1/models/pets/aliases/best", json=body), 422, "other_name", "model", "'cars'")
    problem(api.write("PUT", "/v1/models/pets/aliases/a b", json=body), 422, "invalid", "alias")
    assert api.read.get("/v1/models/pets/aliases").json()["items"] == []


def test_a_pinned_model_is_loaded_now_and_when_the_service_starts(api: Service, model_id: str) -> None:
    def state(of: Service) -> str:
        return str(of.read.get(f"/v1/models/{model_id}").json()["serving"]["state"])

    assert api.write.post(f"/v1/models/{model_id}:pin").json()["pinned"] is True
    await_state(lambda: state(api), "ready")
    with open_service(api.stage.settings) as again:
        again.read = again.caller(api.workspace, Scope.read)
        await_state(lambda: state(again), "ready")
    assert api.write.post(f"/v1/models/{model_id}:unpin").json()["pinned"] is False
    with open_service(api.stage.settings) as again:
        again.read = again.caller(api.workspace, Scope.read)
        assert state(again) == "unloaded"


def await_state(look: Callable[[], str], state: str) -> None:
    deadline = time.monotonic() + 60
    while look() != state:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_past_the_limits_calls_are_refused_with_a_time_to_come_back(make_api: OpenService, trained: FitResult) -> None:
    api = make_api(predict_queue=1, predict_requests=2)
    model_id = api.model(trained)
    statuses = set()

    def ask(_: int) -> Any:
        return predict(api, model_id, content=PICTURE)

    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(ask, range(40)):
            statuses.add(response.status_code)
            if response.status_code != 200:
                problem(response, 503, "overloaded")
                assert int(response.headers["retry-after"]) >= 1
    assert statuses == {200, 503}
    assert ask(0).status_code == 200


def test_who_was_just_refused_is_refused_unread(make_api: OpenService, trained: FitResult) -> None:
    api = make_api(shortcuts=Shortcuts(refused_seconds=60.0))
    model_id = api.model(trained)
    path, key = f"/v1/models/{model_id}/predict", api.predict.headers["Authorization"]
    refusals = kept(api).refusals
    error = Unavailable("Too many wait.", code="overloaded", retry_after=7)
    refusals.put((path, b"", key), error, 60.0)
    refused = predict(api, model_id, content=b"no image at all")  # which would be a 422, had anybody looked
    problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "7"
    assert refused.headers["x-request-id"]
    assert predict(api, model_id, "?timeout=60", content=PICTURE).status_code == 200  # another call than the refused
    refusals.put((path, b"", key), error, 0.0)
    assert predict(api, model_id, content=PICTURE).status_code == 200


def test_a_call_says_how_long_it_would_wait(api: Service, model_id: str) -> None:
    response = predict(api, model_id, "?timeout=0.01", content=PICTURE)  # not even loaded by then
    problem(response, 503, "deadline_exceeded", remedy="timeout")
    assert response.headers["retry-after"] == "1"
    problem(predict(api, model_id, "?timeout=0", content=PICTURE), 422, "invalid", "timeout")
    assert predict(api, model_id, "?timeout=60", content=PICTURE).status_code == 200


def test_a_call_like_one_before_needs_no_look_at_what_it_depends_on(api: Service, model_id: str) -> None:
    answers = [predict(api, model_id, "?top_k=1", content=PICTURE).json()["items"] for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(answers[0][0]["predictions"]) == 1
    kept(api).queries.put(b"top_k=1", PredictOptions(top_k=2))  # only who does not read the query again is told two
    (item,) = predict(api, model_id, "?top_k=1", content=PICTURE).json()["items"]
    assert len(item["predictions"]) == 2


def test_a_call_like_one_before_is_refused_as_that_one_was(api: Service, model_id: str) -> None:
    path = f"/v1/models/{model_id}/predict?threshold=0.1"
    for _ in range(2):
        problem(predict(api, model_id, "?top_k=none", content=PICTURE), 422, "invalid", "top_k")
    assert kept(api).queries.get(b"top_k=none") is None
    assert api.predict.post(path, content=PICTURE).status_code == 200  # what the query asks is known now
    assert api.read.get("/v1/models").status_code == 200  # and so is this key
    for _ in range(2):
        problem(api.read.post(path, content=PICTURE), 403, "missing_scope")
        problem(api.nobody.post(path, content=PICTURE), 401, "unauthenticated")
    made = api.admin.post("/v1/keys", json={"name": "leaver", "scopes": ["predict"]}).json()
    leaver = Caller(api.http, made["secret"])
    assert [leaver.post(path, content=PICTURE).status_code for _ in range(2)] == [200, 200]
    assert api.admin.delete(f"/v1/keys/{made['id']}").status_code == 200
    problem(leaver.post(path, content=PICTURE), 401, "key_revoked")


def test_a_long_query_is_not_kept(api: Service, model_id: str) -> None:
    long = "?classes=ants" + "&classes=bees" * 50
    assert predict(api, model_id, long, content=PICTURE).status_code == 200
    assert kept(api).queries.get(long[1:].encode()) is None


def test_without_its_shortcuts_a_call_has_the_same_answer(make_api: OpenService, trained: FitResult) -> None:
    plain = Shortcuts(direct=False, keys=False, models=False, refused_seconds=0.0, first=False, switch_seconds=0.005)
    answers = []
    for shortcuts in (Shortcuts(), plain):
        api = make_api(shortcuts=shortcuts)
        model_id = api.model(trained)
        answers += [predict(api, model_id, "?top_k=1", content=PICTURE) for _ in range(2)]
        problem(api.read.post(f"/v1/models/{model_id}/predict?top_k=1", content=PICTURE), 403, "missing_scope")
        problem(api.nobody.post(f"/v1/models/{model_id}/predict?top_k=1", content=PICTURE), 401, "unauthenticated")
    assert [one.status_code for one in answers] == [200] * 4
    assert len({str(one.json()["items"]) for one in answers}) == 1


def kept(api: Service) -> PredictPath:
    """What this service keeps for its predict calls."""
    found: PredictPath = api.http.app.state.services.predict_path  # type: ignore[attr-defined]
    return found
