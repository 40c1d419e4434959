"""float16 with loss scaling, bfloat16 and float32: what they compute, skip, remember, and where they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.vision.errors import InvalidConfig, Stopped
from app.vision.runtime import precision
from app.vision.training.optimisation import apply_gradients
from tests.support.pictures import Recorder
from tests.support.runs import Fit

FLOAT16: dict[str, Any] = {
    "precision": "float16",
    "train": "last_stages",
    "epochs": 2,
    "batch_size": 8,
    "clip_norm": 1.0,
    "l1": 0.001,
}


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a CPU compute in float16: slowly, and with the same scaling as a GPU."""
    monkeypatch.setattr(precision, "FLOAT16_DEVICES", frozenset({"cpu", "cuda"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which can do it")
def test_float16_on_a_cpu_is_refused_before_anything_is_decoded(run_fit: Fit) -> None:
    recorder = Recorder()
    with pytest.raises(InvalidConfig, match=r"'float16' needs a CUDA GPU.*; use 'bfloat16', 'float32'") as caught:
        run_fit(observer=recorder, precision="float16")
    assert caught.value.field == "precision"
    assert recorder.phases == []


def test_auto_never_chooses_a_format_that_overflows() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert precision.trunk_dtype("auto", device) in (None, torch.bfloat16)
    assert precision.make_scaler("auto", device) is None


def test_float16_comes_near_float32_and_not_to_the_same(run_fit: Fit, anywhere: None) -> None:
    half, full = run_fit("half", **FLOAT16), run_fit("full", **FLOAT16 | {"precision": "float32"})
    losses = [[metrics["train_loss"] for metrics in run.history] for run in (half, full)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("step", [2, 4])
def test_a_resumed_run_goes_on_with_the_scale_it_had(
    run_fit: Fit, tmp_path: Path, anywhere: None, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    # So high that the first steps overflow: a scale that was forgotten would leave steps out that should be done.
    make = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: make(device, init_scale=2.0**24, growth_interval=2))
    unbroken = run_fit("unbroken", **FLOAT16)
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("stopped", Recorder(stop_after=step, keep=kept), **FLOAT16)
    resumed = run_fit("resumed", resume=kept, **FLOAT16)
    assert resumed.model_path.read_bytes() == unbroken.model_path.read_bytes()


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_step_that_overflowed_moves_nothing_and_halves_the_scale(clip_norm: float) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for gradient, moved in ((float("inf"), False), (1.0, True)):
        scale = scaler.get_scale()
        optimizer.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()  # type: ignore[no-untyped-call]
        before = weight.detach().clone()
        apply_gradients(optimizer, scaler, clip_norm=clip_norm, l1=0.5)
        assert bool((weight != before).any()) is moved
        assert scaler.get_scale() == (scale if moved else scale / 2)


def test_scaling_does_not_change_what_is_clipped_and_followed() -> None:
    moved = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=4096.0)):
        weight = torch.nn.Parameter(torch.ones(2, 2))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        loss = (weight * 3.0).sum()
        (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        apply_gradients(optimizer, scaler, clip_norm=1.0)
        moved.append(weight.detach().clone())
    torch.testing.assert_close(moved[0], torch.full((2, 2), 0.95))
    torch.testing.assert_close(moved[1], moved[0])
