"""Batch norms that learn, when several ranks share a batch: their statistics are those of the whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from app.vision.networks.network import Network
from app.vision.runtime import ranks


def share_batch_norms(network: Network) -> None:
    """Let the batch norms of the stages that learn see the whole batch, not this rank's part of it.

    On a GPU that is torch's SyncBatchNorm. It has no version for processors, where `SharedBatchNorm` does the same.
    """
    for name in network.learning:
        stage = network.trunk.get_submodule(name)
        if torch.cuda.is_available():
            nn.SyncBatchNorm.convert_sync_batchnorm(stage)  # type: ignore[no-untyped-call]
            continue
        for path, module in list(stage.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                parent, _, own = path.rpartition(".")
                setattr(stage.get_submodule(parent), own, SharedBatchNorm.of(module))


class SharedBatchNorm(nn.BatchNorm2d):
    """Normalises by mean and variance over the batches [n, C, H, W] of all ranks together."""

    @classmethod
    def of(cls, plain: nn.BatchNorm2d) -> SharedBatchNorm:
        """Return one with the parameters and statistics of `plain`, not copies of them."""
        shared = cls(plain.num_features, plain.eps, plain.momentum, device="meta")
        for name, parameter in plain.named_parameters(recurse=False):
            setattr(shared, name, parameter)
        for name, buffer in plain.named_buffers(recurse=False):
            setattr(shared, name, buffer)
        return shared

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        amount = ranks.add_up(torch.tensor(float(values.numel() // values.shape[1])))
        mean = _add_up(values.sum(dim=(0, 2, 3))) / amount
        centred = values - mean[:, None, None]
        variance = _add_up(centred.square().sum(dim=(0, 2, 3))) / amount
        self._remember(mean.detach(), variance.detach() * (amount / (amount - 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None
        for statistic, now in ((self.running_mean, mean), (self.running_var, variance)):
            assert statistic is not None
            statistic.lerp_(now, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


class _Sum(torch.autograd.Function):
    """Sums over the ranks; the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return ranks.add_up(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return ranks.add_up(gradients[0].contiguous().clone())


def _add_up(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)
    return total
