"""Finding, checking and downloading weights, against a real HTTP server."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.vision.backbones.catalogue import Backbone, get_backbone
from app.vision.backbones.weights import BUNDLED, WeightStore, load_state_dict
from app.vision.errors import WeightsUnavailable


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served under."""
    folder = tmp_path / "site"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def publish(folder: Path, content: bytes, digest: str | None = None) -> Backbone:
    """A backbone whose weights file, named by its hash, lies in `folder`."""
    digest = digest or hashlib.sha256(content).hexdigest()[:8]
    name = f"resnet18-{digest}.pth"
    (folder / name).write_bytes(content)
    return dataclasses.replace(get_backbone("resnet18"), weights_file=name, weights_url="http://127.0.0.1:9/" + name)


def test_a_download_lands_checked_in_the_cache(tmp_path: Path, site: tuple[Path, str]) -> None:
    folder, address = site
    content = os.urandom(100_000)
    backbone = publish(folder, content)
    store = WeightStore(None, tmp_path / "cache", mirror=address + "/")
    assert store.status(backbone) == "downloadable"
    assert store.find(backbone) is None
    path = store.obtain(backbone)
    assert path.parent == tmp_path / "cache"
    assert path.read_bytes() == content
    assert store.status(backbone) == "present"


def test_without_a_mirror_the_published_address_is_asked(tmp_path: Path, site: tuple[Path, str]) -> None:
    folder, address = site
    backbone = publish(folder, b"weights")
    backbone = dataclasses.replace(backbone, weights_url=f"{address}/{backbone.weights_file}")
    assert WeightStore(None, tmp_path / "cache").obtain(backbone).read_bytes() == b"weights"


def test_a_download_with_the_wrong_hash_leaves_nothing_behind(tmp_path: Path, site: tuple[Path, str]) -> None:
    folder, address = site
    backbone = publish(folder, b"not what the name says", digest="00000000")
    store = WeightStore(None, tmp_path / "cache", mirror=address)
    with pytest.raises(WeightsUnavailable, match="does not match the hash"):
        store.obtain(backbone)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_download_says_how_to_supply_the_file(tmp_path: Path, site: tuple[Path, str]) -> None:
    backbone = publish(tmp_path, b"elsewhere")
    store = WeightStore(tmp_path / "mine", tmp_path / "cache", mirror=site[1])
    assert store.status(backbone) == "missing"
    with pytest.raises(WeightsUnavailable, match="answered 404") as caught:
        store.obtain(backbone)
    error = caught.value
    assert f"Put {backbone.weights_file} into GRAFT_WEIGHTS_DIR" in str(error)
    assert (error.backbone, error.file_name, error.url) == ("resnet18", backbone.weights_file, backbone.weights_url)
    assert error.searched == (tmp_path / "mine", tmp_path / "cache")


def test_an_unreachable_server_is_reported_not_raised_raw(tmp_path: Path) -> None:
    backbone = publish(tmp_path, b"elsewhere")
    store = WeightStore(None, tmp_path / "cache", mirror="http://127.0.0.1:9")
    assert store.status(backbone) == "missing"
    with pytest.raises(WeightsUnavailable, match="failed"):
        store.obtain(backbone)


def test_downloads_can_be_switched_off(tmp_path: Path, site: tuple[Path, str]) -> None:
    backbone = publish(site[0], b"weights")
    store = WeightStore(None, tmp_path / "cache", mirror=site[1], download=False)
    assert store.status(backbone) == "missing"
    with pytest.raises(WeightsUnavailable, match="switched off"):
        store.obtain(backbone)


def test_the_operators_folder_comes_before_the_cache(tmp_path: Path) -> None:
    for name in ("mine", "cache"):
        (tmp_path / name).mkdir()
        backbone = publish(tmp_path / name, b"weights")
    store = WeightStore(tmp_path / "mine", tmp_path / "cache", download=False)
    assert store.obtain(backbone).parent.name == "mine"
    (tmp_path / "mine" / backbone.weights_file).write_bytes(b"")
    assert store.find(backbone) == tmp_path / "cache" / backbone.weights_file
    assert store.obtain(backbone).parent.name == "cache"


def test_a_spoilt_file_in_the_cache_is_named_or_downloaded_again(tmp_path: Path, site: tuple[Path, str]) -> None:
    backbone = publish(site[0], b"weights")
    (tmp_path / backbone.weights_file).write_bytes(b"weightz")
    with pytest.raises(WeightsUnavailable, match="does not match the hash"):
        WeightStore(None, tmp_path, download=False).obtain(backbone)
    assert WeightStore(None, tmp_path, mirror=site[1]).obtain(backbone).read_bytes() == b"weights"


def test_what_the_operator_supplies_is_taken_whatever_its_hash(tmp_path: Path, site: tuple[Path, str]) -> None:
    backbone = publish(site[0], b"weights")
    (tmp_path / backbone.weights_file).write_bytes(b"weights of my own")
    store = WeightStore(tmp_path, tmp_path / "cache", mirror=site[1])
    assert store.obtain(backbone).read_bytes() == b"weights of my own"


def test_the_bundled_file_needs_no_network(tmp_path: Path) -> None:
    tiny = get_backbone("resnet18-tiny64")
    store = WeightStore(None, tmp_path / "cache", download=False)
    assert store.status(tiny) == "bundled"
    assert store.obtain(tiny) == BUNDLED / tiny.weights_file
    card = (BUNDLED / "README.md").read_text()
    assert hashlib.sha256(store.obtain(tiny).read_bytes()).hexdigest() in card
    assert load_state_dict(store.obtain(tiny), tiny)["fc.weight"].dtype == torch.float32


def test_both_kinds_of_file_are_read(tmp_path: Path) -> None:
    backbone = get_backbone("resnet18")
    state = {"a": torch.arange(3.0)}
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert torch.equal(load_state_dict(tmp_path / name, backbone)["a"], state["a"])


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02 certainly not weights")
    with pytest.raises(WeightsUnavailable, match="cannot be read"):
        load_state_dict(tmp_path / name, get_backbone("resnet18"))
