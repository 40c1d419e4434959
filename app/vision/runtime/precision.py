"""Chooses the number format that the trunk computes in while it trains, and the loss scaling that float16 needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from app.vision.errors import InvalidConfig
from app.vision.settings.config import Precision

FLOAT16_DEVICES = frozenset({"cuda"})  # a CPU computes in float16 as well, but far slower than in float32


def trunk_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return what autocast is told, None for plain float32; raises InvalidConfig for what the device cannot do well."""
    if precision == "float16" and device.type not in FLOAT16_DEVICES:
        raise InvalidConfig(
            "precision",
            "'float16' needs a CUDA GPU, and this job runs on a CPU; use 'bfloat16', 'float32', or 'auto', which"
            " takes the faster of the two.",
        )
    if precision == "auto":
        return fast_dtype(device)
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where the device multiplies it natively, else None: emulated it would be slower than float32.

    Never float16: where a GPU has no bfloat16, the caller has to ask for a format that can overflow.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private names: absent means no
    return torch.bfloat16 if any(getattr(torch.cpu, name, lambda: False)() for name in native) else None


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler | None:
    """Return the loss scaling of float16, whose small gradients would be zero (Micikevicius 2018, arXiv:1710.03740).

    A step whose gradient overflows is left out and the scale halved; None for formats with a range of float32's.
    """
    return torch.amp.GradScaler(device.type) if precision == "float16" else None


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute convolutions in plain float32 meanwhile.

    TF32, a GPU's default, would let answers vary by more than is promised.
    """
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
