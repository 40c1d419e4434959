"""Models are loaded once, kept within a budget, and never answered from damaged bytes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.core.errors import Unavailable
from app.storage import BlobDamaged, BlobMissing, FilesystemStore
from tests.predictions.conftest import OpenCache, Trained


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
    from app.vision.artefact import KIND
    from app.vision.tensorfile import read_tensors, write_tensors

    tensors, document = read_tensors(trained.result.model_path, KIND)
    path = store.root.parent / f"{name}.safetensors"
    write_tensors(path, KIND, tensors, document | {"metrics": {"name": name}})
    return store.put_file(path).sha256


def test_concurrent_first_callers_load_a_model_once(watched: Watched, open_cache: OpenCache, trained: Trained) -> None:
    sha256 = watched.put_file(trained.result.model_path).sha256
    cache = open_cache(with_store=watched)
    watched.gate.clear()
    started = threading.Barrier(9)

    def get() -> object:
        started.wait(60)
        return cache.get(sha256)

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
    size = open_cache(with_store=watched).get(a).classifier.nbytes
    watched.fetched.clear()
    cache = open_cache(budget_bytes=2 * size, with_store=watched)
    first, second = cache.get(a), cache.get(b)
    assert cache.get(a) is first
    cache.get(c)  # b was used least recently
    assert cache.get(a) is first
    assert watched.fetched == [a, b, c]
    with pytest.raises(Unavailable, match="unloaded"):
        second.submit([])
    assert cache.get(b) is not second
    assert watched.fetched == [a, b, c, b]


def test_a_model_larger_than_the_budget_is_served_all_the_same(
    watched: Watched, open_cache: OpenCache, trained: Trained
) -> None:
    a, b = (other_model(watched, trained, name) for name in "ab")
    cache = open_cache(budget_bytes=1, with_store=watched)
    first = cache.get(a)
    assert cache.get(a) is first
    assert cache.get(b) is not first
    assert cache.get(a) is not first
    assert watched.fetched == [a, b, a]


def test_a_load_that_failed_is_tried_again(store: FilesystemStore, open_cache: OpenCache, trained: Trained) -> None:
    sha256 = store.put_file(trained.result.model_path).sha256
    store.delete(sha256)
    cache = open_cache()
    for _ in range(2):
        with pytest.raises(BlobMissing):
            cache.get(sha256)
    store.put_file(trained.result.model_path)
    assert cache.get(sha256).classifier.classes == ("ants", "bees", "wasps")


@pytest.mark.parametrize("where", ["in a weight", "at the end", "at the start"])
def test_a_damaged_artefact_is_an_error_and_no_wrong_answer(
    store: FilesystemStore, open_cache: OpenCache, trained: Trained, where: str
) -> None:
    sha256 = store.put_file(trained.result.model_path).sha256
    path = store.root / sha256[:2] / sha256[2:4] / sha256
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
        cache.get(sha256)
    path.write_bytes(whole)
    assert cache.get(sha256).classifier.classes == ("ants", "bees", "wasps")


def test_loading_leaves_no_file_behind(
    store: FilesystemStore, open_cache: OpenCache, trained: Trained, tmp_path: Path
) -> None:
    open_cache().get(store.put_file(trained.result.model_path).sha256)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_closed_cache_takes_no_more_images(store: FilesystemStore, open_cache: OpenCache, trained: Trained) -> None:
    cache = open_cache()
    batcher = cache.get(store.put_file(trained.result.model_path).sha256)
    cache.close()
    with pytest.raises(Unavailable):
        batcher.submit([])
