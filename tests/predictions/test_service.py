"""A prediction is what the trainer's own evaluation said of the same bytes, image by image."""

from uuid import UUID, uuid4

import numpy as np
import pytest

from app.core.errors import Invalid
from app.datasets.intake import IntakeLimits
from app.predictions.schemas import PredictOut
from app.predictions.service import ModelReference, SentImage, predict
from app.storage import FilesystemStore
from tests.images import jpeg, photo
from tests.predictions.conftest import CLASSES, OpenCache, Trained

MODEL: UUID = uuid4()


def ask(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained, images: list[SentImage], top_k: int = len(CLASSES)
) -> PredictOut:
    artefact = store.put_file(trained.result.model_path)
    return predict(open_cache(), ModelReference(MODEL, artefact.sha256), images, top_k=top_k, limits=IntakeLimits())


def rows(answer: PredictOut) -> np.ndarray:
    """Probabilities [N, C] in the order of the classes."""
    by_label = [{one.label: one.probability for one in item.predictions} for item in answer.items]
    return np.array([[row[label] for label in CLASSES] for row in by_label])


@pytest.mark.parametrize("together", [True, False])
def test_predictions_equal_the_trainers_evaluation(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained, together: bool
) -> None:
    samples = [sample for sample in trained.samples if sample.split == "val"]
    sent = [SentImage(sample.path.read_bytes(), sample.path.name) for sample in samples]
    expected = trained.result.probabilities["val"]
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
    (item,) = ask(open_cache, store, trained, [SentImage(jpeg(photo(0, 77)), None)], top_k=100).items
    probabilities = [one.probability for one in item.predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert {one.label for one in item.predictions} == set(CLASSES)


def test_top_k_names_that_many(open_cache: OpenCache, store: FilesystemStore, trained: Trained) -> None:
    picture = [SentImage(jpeg(photo(0, 77)), None)]
    (all_of_it,) = ask(open_cache, store, trained, picture).items
    (two,) = ask(open_cache, store, trained, picture, top_k=2).items
    assert two.predictions == all_of_it.predictions[:2]


def test_answers_stand_in_the_order_of_the_images(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained
) -> None:
    good = [SentImage(jpeg(photo(label, 60)), f"{label}.jpg") for label in range(3)]
    sent = [good[0], SentImage(b"text", "bad.jpg"), good[1], good[2]]
    answer = ask(open_cache, store, trained, sent)
    assert [item.file for item in answer.items] == ["0.jpg", "bad.jpg", "1.jpg", "2.jpg"]
    assert [item.status for item in answer.items] == ["ok", "error", "ok", "ok"]
    assert answer.model_id == MODEL
    without = ask(open_cache, store, trained, good)
    kept = PredictOut(model_id=MODEL, items=[item for item in answer.items if item.status == "ok"])
    assert np.abs(rows(kept) - rows(without)).max() <= 1e-5


def test_a_single_unreadable_image_is_an_error_of_the_call(
    open_cache: OpenCache, store: FilesystemStore, trained: Trained
) -> None:
    with pytest.raises(Invalid, match="Convert it") as caught:
        ask(open_cache, store, trained, [SentImage(b"text", "bad.jpg")])
    assert caught.value.code == "not_an_image"
    assert [error.field for error in caught.value.errors] == ["bad.jpg"]
