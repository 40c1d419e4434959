"""Keeps a moving average of the weights that learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from app.vision.networks.network import Network, learned_state


class MovingAverage:
    """Is an exponential moving average of everything that training changes, batch norm statistics included.

    `decay` is approached from below, min(decay, (1 + n) / (10 + n)) after n steps, so that a short run is not weighed
    down by where it began.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in learned_state(network).items()}

    @torch.no_grad()
    def update(self, network: Network, steps: int) -> None:
        """Take in the weights as they are after `steps` steps of the run."""
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        for name, tensor in learned_state(network).items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, share)
            else:
                self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self, network: Network) -> Iterator[None]:
        """Meanwhile the network has the average for its weights; afterwards its own again, to the bit."""
        own = {name: tensor.detach().clone() for name, tensor in learned_state(network).items()}
        write_state(network, self.tensors)
        try:
            yield
        finally:
            write_state(network, own)


@torch.no_grad()
def write_state(network: Network, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors`, named as in `learned_state`, into the network."""
    current = learned_state(network)
    for name, tensor in tensors.items():
        current[name].copy_(tensor)
