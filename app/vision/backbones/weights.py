"""Finds pretrained weights: inside the package, in the operator's folder, in the cache, or by download."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from app.vision.backbones.catalogue import BACKBONES, Backbone
from app.vision.errors import WeightsUnavailable

if TYPE_CHECKING:
    from torch import Tensor

BUNDLED = Path(__file__).parent / "bundled"
# The first of these whose weights lie on this machine serves when a caller names no backbone.
DEFAULT_ORDER: tuple[str, ...] = ("resnet18", "resnet18-tiny64")

PROBE_TIMEOUT_S = 3.0
PROBE_REMEMBERED_S = 60.0

WeightStatus = Literal["bundled", "present", "downloadable", "missing"]

_probes: dict[str, tuple[float, bool]] = {}


@dataclass(frozen=True)
class WeightStore:
    """Knows where weights may come from.

    `directory` is the operator's, `cache` is ours to write, `mirror` replaces the published address, `download` allows
    the network at all.
    """

    directory: Path | None
    cache: Path
    mirror: str | None = None
    download: bool = True

    def find(self, backbone: Backbone) -> Path | None:
        """Return the file on this machine, or None. Empty files do not count; contents are checked by `obtain`."""
        for folder in self._folders(backbone):
            path = folder / backbone.weights_file
            if path.is_file() and path.stat().st_size > 0:
                return path
        return None

    def status(self, backbone: Backbone) -> WeightStatus:
        """Return whether and how the weights can be had.

        The network is asked (3 s at most) only if no local file is found.
        """
        if backbone.bundled:
            return "bundled"
        if self.find(backbone) is not None:
            return "present"
        return "downloadable" if self.download and _answers(self.url(backbone)) else "missing"

    def url(self, backbone: Backbone) -> str:
        """Return the address to download from: the mirror's if one is set, else the published one."""
        return f"{self.mirror.rstrip('/')}/{backbone.weights_file}" if self.mirror else backbone.weights_url

    def obtain(self, backbone: Backbone) -> Path:
        """Return the file, downloaded into the cache if need be; raises WeightsUnavailable.

        What the operator put into `directory` is taken as it is: weights of one's own may go by a published name. What
        came over the network is not: a file in the cache that does not match the hash in its name is passed over.
        """
        path = self.find(backbone)
        spoilt = path is not None and path.parent == self.cache and not _matches(path, backbone)
        if path is not None and not spoilt:
            return path
        if backbone.bundled or not self.download:
            why = "no file was found" if backbone.bundled else "no file was found and downloads are switched off"
            if spoilt:
                why = f"{path} does not match the hash in its name ({_digest_prefix(backbone)})"
            raise self.unavailable(backbone, why)
        return self._fetch(backbone)

    def _fetch(self, backbone: Backbone) -> Path:
        from torch.hub import download_url_to_file

        target = self.cache / backbone.weights_file
        url = self.url(backbone)
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            # torch writes beside the target, checks the hash, then renames: a broken download leaves nothing behind.
            download_url_to_file(url, str(target), hash_prefix=_digest_prefix(backbone), progress=False)
        except urllib.error.HTTPError as error:
            error.close()
            raise self.unavailable(backbone, f"{url} answered {error.code}") from error
        except RuntimeError as error:
            raise self.unavailable(backbone, f"what {url} sent does not match the hash in its name") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self.unavailable(backbone, f"the download from {url} failed ({error})") from error
        return target

    def _folders(self, backbone: Backbone) -> list[Path]:
        if backbone.bundled:
            return [BUNDLED]
        return [self.cache] if self.directory is None else [self.directory, self.cache]

    def unavailable(self, backbone: Backbone, reason: str) -> WeightsUnavailable:
        """Return the error that says where the file was looked for and how to supply it."""
        folders = self._folders(backbone)
        return WeightsUnavailable(backbone.name, backbone.weights_file, backbone.weights_url, folders, reason)


def _digest_prefix(backbone: Backbone) -> str:
    """Return the start of the SHA-256 in a file name of torchvision's: `resnet18-f37072fd.pth` → `f37072fd`."""
    return Path(backbone.weights_file).stem.rpartition("-")[2]


def _matches(path: Path, backbone: Backbone) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(_digest_prefix(backbone))


def _answers(url: str) -> bool:
    """Return whether a HEAD request is answered 2xx; remembered for a minute, so that listings stay fast."""
    now = time.monotonic()
    if (known := _probes.get(url)) and now - known[0] < PROBE_REMEMBERED_S:
        return known[1]
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the operator's mirror or torchvision's
        with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S) as answer:  # noqa: S310
            reachable = bool(200 <= answer.status < 300)
    except urllib.error.HTTPError as error:
        error.close()
        reachable = False
    except (OSError, ValueError, http.client.HTTPException):
        reachable = False
    _probes[url] = (now, reachable)
    return reachable


def load_state_dict(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    """Return the tensors of a weights file (safetensors or torchvision's zip, never an arbitrary pickle), as float32.

    Raises WeightsUnavailable if the file cannot be read.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    except Exception as error:  # each reader has its own family of errors for a damaged file
        reason = f"{path} cannot be read ({type(error).__name__})"
        raise WeightsUnavailable(
            backbone.name, backbone.weights_file, backbone.weights_url, [path.parent], reason
        ) from error


def default_backbone(weights: WeightStore) -> str:
    """Return the name to use when none is given; looks at local files only, so the answer never waits for a network."""
    return next(name for name in DEFAULT_ORDER if weights.find(BACKBONES[name]) is not None)
