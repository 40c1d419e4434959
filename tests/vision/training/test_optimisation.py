"""Rates of the stages, clipped gradients, and weights that an L1 penalty makes zero."""

from __future__ import annotations

import pytest
import torch

from app.vision.backbones.weights import load_state_dict
from app.vision.networks.network import Network, build_network, load_trunk, set_trainable
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.training.optimisation import clip_gradients, make_optimizer, set_rate, shrink
from tests.support.runs import TINY, WEIGHTS


@pytest.fixture
def network() -> Network:
    network = build_network(TINY, 3, HeadConfig((8,)))
    load_trunk(network, TINY, load_state_dict(WEIGHTS, TINY))
    set_trainable(network, TrainConfig(TINY.name, train="all"))
    return network


def test_each_stage_learns_at_a_fraction_of_the_rate_above_it(network: Network) -> None:
    optimizer = make_optimizer(network, "sgd", 0.0, layer_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    set_rate(optimizer, 0.32)
    optimizer.step()
    steps: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        part, stage, _ = name.split(".", 2)
        moved = (before[name] - parameter.detach()).mean().item()
        steps.setdefault(stage if part == "trunk" else part, moved)
        assert moved == pytest.approx(steps[stage if part == "trunk" else part], rel=1e-3)  # vectors move alike
    # Nesterov's first step is 1.9 times the gradient.
    expected = {"head": 0.32, "layer4": 0.16, "layer3": 0.08, "layer2": 0.04, "layer1": 0.02, "stem": 0.01}
    assert {name: step / 1.9 for name, step in steps.items()} == pytest.approx(expected, rel=1e-3)


def test_a_long_gradient_is_shortened_and_a_short_one_left_alone(network: Network) -> None:
    optimizer = make_optimizer(network, "sgd", 0.0)
    for longest in (2.0, 5.0):  # the second finds a gradient of length 2
        if longest == 2.0:
            for parameter in network.parameters():
                parameter.grad = torch.ones_like(parameter)
        clip_gradients(optimizer, longest)
        length = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
        assert float(length) == pytest.approx(2.0, rel=1e-3)


def test_an_l1_step_takes_the_same_off_every_weight_and_stops_at_zero(network: Network) -> None:
    optimizer = make_optimizer(network, "adamw", 0.0)
    set_rate(optimizer, 0.1)
    last = network.head.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([-0.5, -0.01, 0.0, 0.01, 0.02, 0.03, 0.5, 1.0]).expand(3, 8))
        last.bias.fill_(0.5)
    trunk = network.trunk.get_parameter("layer4.0.conv1.weight")
    frozen = trunk.detach().clone()
    last.weight.grad = torch.zeros_like(last.weight)
    last.bias.grad = torch.zeros_like(last.bias)
    shrink(optimizer, 0.2)
    expected = torch.tensor([-0.48, 0.0, 0.0, 0.0, 0.0, 0.01, 0.48, 0.98]).expand(3, 8)
    torch.testing.assert_close(last.weight.detach(), expected)
    assert (last.weight == 0).sum() == 12
    assert (last.bias == 0.5).all()
    assert torch.equal(trunk, frozen)  # what has no gradient does not learn
