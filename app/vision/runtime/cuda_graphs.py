"""Records the trunk's two passes as CUDA graphs, so that a GPU is told once what to do and not in every step."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from app.vision.runtime.memory import available

SHARE = 0.5  # of the memory that is free: graphs keep their activations, and what runs beside them needs room, too


@contextmanager
def _no_collection() -> Iterator[None]:
    """Meanwhile no garbage is collected: an earlier graph in it must not be freed while another is recorded."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class GraphedTrunk:
    """Calls `trunk`: as a graph for the numbers of images that were recorded, and as it is for all others.

    A graph runs the kernels of the plain trunk, so what comes out is the same; what it saves is the time in which
    Python asks for each of them, which with small batches is longer than the GPU's work. A step may go back through it
    once: a second pass would overwrite the gradients of the first.
    """

    def __init__(self, trunk: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
        """Take what autocast computes in as `dtype`, None for nothing."""
        self._trunk = trunk
        self._device = device
        self._dtype = dtype
        self._graphs: dict[int, Callable[..., Any]] = {}
        self._learning = -1  # how many tensors learn in these
        self._began = 0  # bytes that were allocated when that many began to
        self._possible = device.type == "cuda"

    def record(self, counts: Collection[int], size: tuple[int, int]) -> None:
        """Have graphs, before an epoch, for its batches of so many images [3, *size], and for no others.

        The first epoch, and the first in which other layers learn, runs as it is and tells how much memory a batch
        takes. Where graphs would take too much, or cannot be recorded, there are none from then on. The trunk is left
        as it was.
        """
        if not self._possible:
            return
        learning = sum(parameter.requires_grad for parameter in self._trunk.parameters())
        if learning != self._learning or not counts:
            self._graphs.clear()
            self._learning, self._began = learning, torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            return
        new = sorted(set(counts) - self._graphs.keys(), reverse=True)
        if not learning or not new:
            return
        taken = torch.cuda.max_memory_allocated() - self._began
        self._possible = len(new) * taken <= SHARE * available(self._device)
        if self._possible:
            self._record(new, size)

    def _record(self, counts: Collection[int], size: tuple[int, int]) -> None:
        statistics = [(buffer, buffer.clone()) for buffer in self._trunk.buffers()]
        try:
            with _no_collection():
                for count in counts:
                    self._graphs[count] = self.recorded(count, size)
        except Exception:  # whatever it was, the plain trunk does the same work, and raises what is an error
            self._possible = False
        finally:
            with torch.no_grad():
                for buffer, before in statistics:
                    buffer.copy_(before)
        if not self._possible:  # only here is what the failed recording held garbage
            self._graphs.clear()
            gc.collect()
            torch.cuda.empty_cache()

    def recorded(self, count: int, size: tuple[int, int]) -> Callable[..., Any]:
        """Return the recording of a forward and backward pass with so many images of that height and width."""
        images = torch.zeros(count, 3, *size, device=self._device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None, cache_enabled=False):
            # In a module of its own, for it is that module's `forward` which is replaced.
            return torch.cuda.make_graphed_callables(nn.Sequential(self._trunk), (images,))

    def __call__(self, images: Tensor) -> Tensor:
        graph = self._graphs.get(len(images)) if torch.is_grad_enabled() else None
        features: Tensor = (graph or self._trunk)(images)
        return features
