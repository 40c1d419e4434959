"""Compiles the trunk for its training passes where a compiler is at hand; otherwise says why it does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from app.vision.runtime.memory import is_exhaustion


class CompiledTrunk:
    """Calls `trunk`, compiled when gradients are wanted. `note` says why it is not, once that has shown.

    The number of images is compiled as a variable: sizes that vary by one need no second version, so that it does not
    depend on what a run began with, or resumed with, which of two versions computes a batch.
    """

    def __init__(self, trunk: nn.Module) -> None:
        self.note: str | None = None
        self._trunk = trunk
        self._tried = -1  # how many tensors learnt when both passes were last tried
        self._compiled = torch.compile(trunk)

    def __call__(self, images: Tensor) -> Tensor:
        if self.note is None and torch.is_grad_enabled():
            if len(images) > 1:
                torch._dynamo.mark_dynamic(images, 0)
            try:
                self._try(images)
                return self._compiled(images)  # type: ignore[no-any-return]
            except Exception as error:
                if is_exhaustion(error):
                    raise
                cause = getattr(error, "inner_exception", error)
                reason = " ".join(str(cause).split())[:200]
                self.note = f"compile: not done, for it failed with {type(cause).__name__}: {reason}"
        return self._trunk(images)  # type: ignore[no-any-return]

    def _try(self, images: Tensor) -> None:
        """Try both passes, before a step depends on them and whenever other layers learn; they leave nothing behind.

        What is compiled for the way back shows its faults only there, where nobody could take the plain trunk instead.
        """
        learning = [parameter for parameter in self._trunk.parameters() if parameter.requires_grad]
        if len(learning) == self._tried:
            return
        statistics = [(buffer, buffer.clone()) for buffer in self._trunk.buffers()]
        try:
            out = self._compiled(images)
            if learning:
                with torch.autocast(images.device.type, enabled=False):
                    torch.autograd.grad(out.float().sum(), learning, allow_unused=True)
        finally:
            with torch.no_grad():
                for buffer, before in statistics:
                    buffer.copy_(before)
        self._tried = len(learning)
