"""Models are loaded once, kept within a budget, and never answered from damaged bytes."""

import gc
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

from app.core.errors import Unavailable
from app.predictions.serving.batcher import Batcher
from app.storage import BlobDamaged, BlobMissing, FilesystemStore
from tests.support.serving import OpenCache, Trained, loaded, reference


class Watched(FilesystemStore):
    """Counts what is fetched, and holds fetches back until the gate is open."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []
        self.gate = threading.Event()

    def fetch(self, sha256: str, directory: Path) -> Path:
        self.fetched.append(sha256)
        assert self.gate.wait(60)
        return super().fetch(sha256, directory)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    store = Watched(tmp_path / "blobs")
    store.gate.set()
    return store


def other_model(store: FilesystemStore, trained: Trained, name: str) -> str:
    """The same network under another hash: its file says another score."""
    from app.vision.artefacts.model_file import KIND
    from app.vision.artefacts.tensorfile import read_tensors, write_tensors

    tensors, document = read_tensors(trained.result.model_path, KIND)
    path = store.root.parent / f"{name}.safetensors"
    write_tensors(path, KIND, tensors, document | {"metrics": {"name": name}})
    return store.put_file(path).sha256


def classify(batcher: Batcher, trained: Trained) -> float:
    """How probable the first class is of one image."""
    (future,) = batcher.submit([batcher.model.prepare(trained.samples[0].path)])
    return float(future.result(60).probabilities[0])


def test_concurrent_first_callers_load_a_model_once(watched: Watched, open_cache: OpenCache, trained: Trained) -> None:
    sha256 = watched.put_file(trained.result.model_path).sha256
    cache = open_cache(with_store=watched)
    watched.gate.clear()
    started = threading.Barrier(9)

    def get() -> object:
        started.wait(60)
        return loaded(cache, sha256)

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(get) for _ in range(8)]
        started.wait(60)
        watched.gate.set()
        found = {id(future.result(60)) for future in futures}
    assert len(found) == 1
    assert watched.fetched == [sha256]


def test_the_least_recently_used_is_unloaded_when_the_budget_is_spent(
    watched: Watched, open_cache: OpenCache, trained: Trained
) -> None:
    a, b, c = (other_model(watched, trained, name) for name in "abc")
    size = loaded(open_cache(with_store=watched), a).model.nbytes
    watched.fetched.clear()
    cache = open_cache(budget_bytes=2 * size, with_store=watched)
    first, second = loaded(cache, a), loaded(cache, b)
    assert loaded(cache, a) is first
    loaded(cache, c)  # b was used least recently
    assert loaded(cache, a) is first
    assert watched.fetched == [a, b, c]
    with pytest.raises(Unavailable, match="unloaded"):
        classify(second, trained)
    assert loaded(cache, b) is not second
    assert watched.fetched == [a, b, c, b]


def test_a_model_larger_than_the_budget_is_served_all_the_same(
    watched: Watched, open_cache: OpenCache, trained: Trained
) -> None:
    a, b = (other_model(watched, trained, name) for name in "ab")
    cache = open_cache(budget_bytes=1, with_store=watched)
    first = loaded(cache, a)
    assert loaded(cache, a) is first
    assert loaded(cache, b) is not first
    assert loaded(cache, a) is not first
    assert watched.fetched == [a, b, a]


def test_a_load_that_failed_is_tried_again(store: FilesystemStore, open_cache: OpenCache, trained: Trained) -> None:
    sha256 = store.put_file(trained.result.model_path).sha256
    store.delete(sha256)
    cache = open_cache()
    for _ in range(2):
        with pytest.raises(BlobMissing):
            loaded(cache, sha256)
    store.put_file(trained.result.model_path)
    assert loaded(cache, sha256).model.classes == ("ants", "bees", "wasps")


@pytest.mark.parametrize("where", ["in a weight", "at the end", "at the start"])
def test_a_damaged_artefact_is_an_error_and_no_wrong_answer(
    store: FilesystemStore, open_cache: OpenCache, trained: Trained, where: str
) -> None:
    sha256 = store.put_file(trained.result.model_path).sha256
    path = store.root / sha256[:2] / sha256
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "in a weight": whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :],
        "at the end": whole[:-10],
        "at the start": b"\0" * 16 + whole[16:],
    }[where]
    path.write_bytes(damaged)
    cache = open_cache()
    with pytest.raises(BlobDamaged):
        loaded(cache, sha256)
    path.write_bytes(whole)
    assert loaded(cache, sha256).model.classes == ("ants", "bees", "wasps")


def test_loading_leaves_no_file_behind(
    store: FilesystemStore, open_cache: OpenCache, trained: Trained, tmp_path: Path
) -> None:
    loaded(open_cache(), store.put_file(trained.result.model_path).sha256)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_once_a_model_is_loaded_collections_leave_alone_what_was_imported_for_it(
    store: FilesystemStore, open_cache: OpenCache, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1000):  # as if torch, its exporter and OpenVINO had just been imported
        monkeypatch.setitem(sys.modules, f"made_up_{number}", ModuleType("made_up"))
    gc.unfreeze()
    sha256 = store.put_file(trained.result.model_path).sha256
    with open_cache().lease(reference(sha256)) as loading:
        loading.result(60)
    assert gc.get_freeze_count() > 10_000


def test_a_closed_cache_takes_no_more_images(store: FilesystemStore, open_cache: OpenCache, trained: Trained) -> None:
    cache = open_cache()
    batcher = loaded(cache, store.put_file(trained.result.model_path).sha256)
    cache.close()
    with pytest.raises(Unavailable):
        classify(batcher, trained)


def test_a_model_in_use_is_not_unloaded_and_the_next_waits_for_room(
    watched: Watched, open_cache: OpenCache, trained: Trained
) -> None:
    a, b = (other_model(watched, trained, name) for name in "ab")
    size = trained.result.model_path.stat().st_size
    cache = open_cache(budget_bytes=size * 3 // 2, with_store=watched)
    with ExitStack() as first, ExitStack() as second:
        used = first.enter_context(cache.lease(reference(a, artefact_size=size))).result(60)
        waiting = second.enter_context(cache.lease(reference(b, artefact_size=size)))
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        assert (cache.serving(reference(a)).state, cache.serving(reference(b)).state) == ("ready", "loading")
        classify(used, trained)
        first.close()
        classify(waiting.result(60), trained)
        assert (cache.serving(reference(a)).state, cache.serving(reference(b)).state) == ("unloaded", "ready")


def test_a_pinned_model_outlives_every_other(watched: Watched, open_cache: OpenCache, trained: Trained) -> None:
    a, b, c = (other_model(watched, trained, name) for name in "abc")
    cache = open_cache(budget_bytes=1, with_store=watched)
    first = loaded(cache, a, pinned=True)
    loaded(cache, b)
    loaded(cache, c)
    assert loaded(cache, a, pinned=True) is first
    cache.tell(reference(a))  # no longer pinned
    loaded(cache, b)
    assert cache.serving(reference(a)).state == "unloaded"


def test_an_idle_model_is_unloaded_and_a_pinned_one_is_not(
    watched: Watched, open_cache: OpenCache, trained: Trained
) -> None:
    a, b = (other_model(watched, trained, name) for name in "ab")
    cache = open_cache(with_store=watched, idle_seconds=0.05)
    with cache.lease(reference(a)) as loading:
        loading.result(60)
        pinned = loaded(cache, b, pinned=True)
        time.sleep(0.3)
        assert cache.serving(reference(a)).state == "ready"  # somebody uses it
    await_true(lambda: cache.serving(reference(a)).state == "unloaded")
    assert loaded(cache, b, pinned=True) is pinned
    assert loaded(cache, a).model.classes == ("ants", "bees", "wasps")


def test_many_models_take_turns_in_a_small_budget(watched: Watched, open_cache: OpenCache, trained: Trained) -> None:
    """Several callers at once, twenty models, room for three: nobody is refused."""
    size = trained.result.model_path.stat().st_size
    models = [other_model(watched, trained, str(number)) for number in range(20)]
    budget = size * 7 // 2
    cache = open_cache(budget_bytes=budget, with_store=watched)

    def ask(sha256: str) -> float:
        with cache.lease(reference(sha256, artefact_size=size)) as loading:
            batcher = loading.result(60)
            assert cache.held_bytes() <= budget
            return classify(batcher, trained)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, models * 2))
    assert max(answers) - min(answers) < 1e-5


def test_a_model_that_cannot_be_loaded_is_unhealthy_until_it_is_mended(
    store: FilesystemStore, open_cache: OpenCache, trained: Trained
) -> None:
    sha256 = store.put_bytes(b"no model at all").sha256
    cache = open_cache(retry_seconds=60)
    with pytest.raises(Unavailable, match="cannot be loaded"):
        loaded(cache, sha256)
    serving = cache.serving(reference(sha256))
    assert serving.state == "unhealthy"
    assert "cannot be loaded" in str(serving.detail)
    assert serving.since is not None
    with pytest.raises(Unavailable, match="cannot be loaded") as caught:  # without another attempt
        cache.lease(reference(sha256))
    assert 50 < (caught.value.retry_after or 0) <= 60


def test_a_model_that_fails_while_it_answers_is_dropped_and_loaded_anew(
    watched: Watched, open_cache: OpenCache, trained: Trained
) -> None:
    sha256 = watched.put_file(trained.result.model_path).sha256
    cache = open_cache(with_store=watched, retry_seconds=0)
    batcher = loaded(cache, sha256)
    last = batcher.model.network.head.layers[-1]
    before = last.bias.clone()
    last.bias.fill_(float("nan"))  # as a broken memory or a bad kernel would
    with pytest.raises(Unavailable, match="failed") as caught:
        classify(batcher, trained)
    assert caught.value.code == "model_failed"
    assert cache.serving(reference(sha256)).state == "unhealthy"
    mended = loaded(cache, sha256)
    assert mended is not batcher
    assert mended.model.network.head.layers[-1].bias.equal(before)
    assert cache.serving(reference(sha256)).state == "ready"


def await_true(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if look():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")
