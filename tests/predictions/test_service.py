"""A prediction is what the trainer's own evaluation said of the same bytes, image by image."""

import asyncio
import threading
import time
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from app.core.errors import Invalid, Unavailable
from app.datasets.intake.intake import IntakeLimits
from app.predictions.references import ModelReference
from app.predictions.schemas import PredictOptions, PredictOut
from app.predictions.service import Predictor, SentImage
from app.predictions.serving.decoding import Decoder
from app.predictions.serving.timing import Times
from app.storage import FilesystemStore
from app.vision.engines.model import TrainedModel
from tests.support.images import jpeg, photo
from tests.support.serving import CLASSES, OpenCache, Trained

MODEL: UUID = uuid4()


def ask(
    open_cache: OpenCache,
    store: FilesystemStore,
    trained: Trained,
    images: list[SentImage],
    top_k: int = len(CLASSES),
    **asked: Any,
) -> PredictOut:
    artefact = store.put_file(trained.result.model_path)
    predictor = Predictor(open_cache(), Decoder(2), IntakeLimits())
    options = PredictOptions(top_k=top_k, **asked)
    model = ModelReference(MODEL, artefact.sha256)
    return asyncio.run(predictor.predict(model, images, options, timeout=60, times=[]))


def sent_image(data: bytes, name: str | None = None) -> SentImage:
    return SentImage(lambda: data, name)


def rows(answer: PredictOut) -> np.ndarray:
    """Probabilities [N, C] in the order of the classes."""
    by_label = [{one.label: one.probability for one in item.predictions} for item in answer.items]
    return np.array([[row[label] for label in CLASSES] for row in by_label])


@pytest.mark.parametrize("together", [True, False])
def test_predictions_equal_the_trainers_evaluation(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained, together: bool
) -> None:
    samples = [sample for sample in trained.samples if sample.split == "val"]
    sent = [SentImage(sample.path.read_bytes, sample.path.name) for sample in samples]
    expected = trained.result.finished.arrays["probabilities"]["val"]
    if together:
        answered = rows(ask(open_cache, store, trained, sent))
    else:
        answered = np.concatenate([rows(ask(open_cache, store, trained, [one])) for one in sent[::5]])
        expected = expected[::5]
    assert len(answered) == len(expected) == (36 if together else 8)
    assert np.abs(answered - expected).max() <= 1e-5
    assert (answered.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert len(set(expected.argmax(axis=1))) > 1  # it is no constant that is compared


def test_the_most_probable_comes_first_and_all_add_up_to_one(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained
) -> None:
    (item,) = ask(open_cache, store, trained, [sent_image(jpeg(photo(0, 77)))], top_k=100).items
    probabilities = [one.probability for one in item.predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert {one.label for one in item.predictions} == set(CLASSES)


def test_top_k_names_that_many(open_cache: OpenCache, store: FilesystemStore, trained: Trained) -> None:
    picture = [sent_image(jpeg(photo(0, 77)))]
    (all_of_it,) = ask(open_cache, store, trained, picture).items
    (two,) = ask(open_cache, store, trained, picture, top_k=2).items
    assert two.predictions == all_of_it.predictions[:2]


def test_answers_stand_in_the_order_of_the_images(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained
) -> None:
    good = [sent_image(jpeg(photo(label, 60)), f"{label}.jpg") for label in range(3)]
    sent = [good[0], sent_image(b"text", "bad.jpg"), good[1], good[2]]
    answer = ask(open_cache, store, trained, sent)
    assert [item.file for item in answer.items] == ["0.jpg", "bad.jpg", "1.jpg", "2.jpg"]
    assert [item.status for item in answer.items] == ["ok", "error", "ok", "ok"]
    assert answer.model_id == MODEL
    without = ask(open_cache, store, trained, good)
    kept = PredictOut(model_id=MODEL, engine="torch", items=[item for item in answer.items if item.status == "ok"])
    assert np.abs(rows(kept) - rows(without)).max() <= 1e-5


def test_a_single_unreadable_image_is_an_error_of_the_call(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained
) -> None:
    with pytest.raises(Invalid, match="Convert it") as caught:
        ask(open_cache, store, trained, [sent_image(b"text", "bad.jpg")])
    assert caught.value.code == "not_an_image"
    assert [error.field for error in caught.value.errors] == ["bad.jpg"]


def test_only_the_classes_that_were_asked_for_are_named(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained
) -> None:
    picture = [sent_image(jpeg(photo(0, 77)))]
    (full,) = ask(open_cache, store, trained, picture, probabilities="all").items
    named = {one.label: one.probability for one in full.predictions}
    assert full.probabilities == pytest.approx(named)
    assert list(full.probabilities or {}) == list(CLASSES)  # in the order of the outputs

    (some,) = ask(open_cache, store, trained, picture, classes=["wasps", "ants"]).items
    assert [one.label for one in some.predictions] == [one for one in named if one != "bees"]
    assert {one.label: one.probability for one in some.predictions} == pytest.approx(
        {label: named[label] for label in ("ants", "wasps")}  # not rescaled
    )
    assert some.probabilities is None

    best, second, _ = named.values()
    (likely,) = ask(open_cache, store, trained, picture, threshold=(best + second) / 2).items
    assert likely.predictions == full.predictions[:1]
    assert ask(open_cache, store, trained, picture, threshold=1.0).items[0].predictions == []


def test_an_unknown_class_is_named(open_cache: OpenCache, store: FilesystemStore, trained: Trained) -> None:
    with pytest.raises(Invalid, match=r"no class 'hornets'.*'ants'") as caught:
        ask(open_cache, store, trained, [sent_image(jpeg(photo(0, 77)))], classes=["ants", "hornets"])
    assert [error.field for error in caught.value.errors] == ["classes"]


def test_after_the_deadline_the_call_is_refused_and_what_waits_is_not_computed(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    answer, gate = TrainedModel.answer, threading.Event()

    def slow(self: TrainedModel, batch: np.ndarray) -> list[Any]:
        computed.append(len(batch))
        assert gate.wait(60)
        return answer(self, batch)

    monkeypatch.setattr(TrainedModel, "answer", slow)
    model = ModelReference(MODEL, store.put_file(trained.result.model_path).sha256)
    predictor = Predictor(open_cache(), Decoder(2), IntakeLimits())
    picture = [sent_image(jpeg(photo(0, 77)))]

    async def ask_thrice() -> list[PredictOut | BaseException]:
        first = asyncio.create_task(predictor.predict(model, picture, PredictOptions(), timeout=60, times=[]))
        while not computed:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        late = await asyncio.gather(
            predictor.predict(model, picture * 3, PredictOptions(), timeout=0.2, times=[]), return_exceptions=True
        )
        assert 0.2 <= time.monotonic() - began < 30
        gate.set()
        return [*late, await first, await predictor.predict(model, picture, PredictOptions(), timeout=60, times=[])]

    late, first, after = asyncio.run(ask_thrice())
    assert isinstance(late, Unavailable)
    assert (late.code, late.retry_after) == ("deadline_exceeded", 1)
    assert isinstance(first, PredictOut)
    assert isinstance(after, PredictOut)
    assert computed == [1, 1]


def test_the_times_of_each_image_add_up(open_cache: OpenCache, store: FilesystemStore, trained: Trained) -> None:
    model = ModelReference(MODEL, store.put_file(trained.result.model_path).sha256)
    predictor = Predictor(open_cache(), Decoder(1), IntakeLimits())
    times: list[Times] = []
    pictures = [sent_image(jpeg(photo(0, number))) for number in range(5)]
    asyncio.run(predictor.predict(model, pictures, PredictOptions(), timeout=60, times=times))
    assert len(times) == 5
    for one in times:
        assert one.arrived <= one.decoding <= one.decoded <= one.started <= one.ended
        assert one.queue + one.decode + one.model == pytest.approx(one.ended - one.arrived)
