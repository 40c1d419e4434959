"""Trunks, heads and what learns."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from app.vision.backbones.catalogue import BACKBONES, get_backbone
from app.vision.backbones.weights import BUNDLED, load_state_dict
from app.vision.networks.network import (
    Network,
    Pool,
    build_network,
    learned_state,
    load_trunk,
    set_trainable,
    stage_names,
)
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.training.optimisation import make_optimizer

TINY = get_backbone("resnet18-tiny64")


def tiny(head: HeadConfig | None = None, classes: int = 3) -> Network:
    network = build_network(TINY, classes, head or HeadConfig())
    load_trunk(network, TINY, load_state_dict(BUNDLED / TINY.weights_file, TINY))
    return network


def test_resnet_features_are_those_of_torchvision() -> None:
    published = load_state_dict(BUNDLED / TINY.weights_file, TINY)
    model = torchvision.models.resnet18(num_classes=200)
    model.load_state_dict(published, strict=False)
    model.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(tiny().eval().trunk(images), model.eval()(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_vgg_features_are_those_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        features = torchvision.models.get_model(name).features
    features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in features.state_dict().values():
            if tensor.is_floating_point():
                tensor.normal_(0, 0.05, generator=generator).abs_()
    network = build_network(get_backbone(name), 3, HeadConfig())
    load_trunk(network, get_backbone(name), {f"features.{key}": value for key, value in features.state_dict().items()})
    images = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.inference_mode():
        expected = features.eval()(images).mean(dim=(2, 3))
        torch.testing.assert_close(network.eval().trunk(images), expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused() -> None:
    published = load_state_dict(BUNDLED / TINY.weights_file, TINY)
    for name in ("resnet34", "resnet50", "vgg11"):
        with pytest.raises(ValueError, match=r"no tensor|has shape"):
            load_trunk(build_network(BACKBONES[name], 3, HeadConfig()), BACKBONES[name], published)


def test_a_new_head_holds_all_classes_equally_likely() -> None:
    for head in (HeadConfig(), HeadConfig((16, 8), 0.5)):
        logits = tiny(head, classes=4).eval()(torch.randn(2, 3, 32, 32))
        assert torch.equal(logits.softmax(dim=1), torch.full((2, 4), 0.25))
    linear = [layer for layer in tiny(HeadConfig((16, 8))).head.layers if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [16, 8, 3]


def test_standardised_features_have_unit_spread_except_dead_ones() -> None:
    network = tiny()
    features = torch.rand(100, 512) * torch.linspace(1, 9, 512)
    features[:, 7] = 2.0
    network.head.standardise(features)
    scaled = (features - network.head.mean) / network.head.scale
    assert scaled[:, 7].abs().max() < 1e-4
    others = [column for column in range(512) if column != 7]
    torch.testing.assert_close(scaled[:, others].std(dim=0, correction=0), torch.ones(511), atol=1e-3, rtol=0)


def test_pooling_worked_out_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 2.0]]]])
    expected = {"avg": [2.5, 0.5], "max": [4.0, 2.0], "gem": [(100 / 4) ** (1 / 3), 2 ** (1 / 3)]}
    for pooling, features in expected.items():
        torch.testing.assert_close(Pool(pooling)(maps), torch.tensor([features]))  # type: ignore[arg-type]
        network = tiny(HeadConfig(pooling=pooling))  # type: ignore[arg-type]
        maps_of = network.eval().trunk[:-1](torch.ones(1, 3, 64, 64))
        torch.testing.assert_close(network.trunk(torch.ones(1, 3, 64, 64)), Pool(pooling)(maps_of))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "thawed"),
    [
        (TrainConfig(TINY.name), set()),
        (TrainConfig(TINY.name, train="last_stages", last_stages=2), {"layer4", "layer3"}),
        (TrainConfig(TINY.name, train="all"), {"layer4", "layer3", "layer2", "layer1", "stem"}),
    ],
)
def test_only_what_was_thawed_moves(config: TrainConfig, thawed: set[str]) -> None:
    network = tiny()
    set_trainable(network, config)
    assert set(network.learning) == thawed <= set(stage_names(network))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = make_optimizer(network, "adamw", 0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    network.train()
    for _ in range(2):  # the head starts at zero: nothing behind it moves in the first step
        loss = nn.functional.cross_entropy(network(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    stages = {name.split(".")[1] for name in moved if name.startswith("trunk.")}
    assert stages == thawed
    assert moved <= learned_state(network).keys()
    # Running statistics belong to the stage: all of a thawed one move, none of a frozen one.
    statistics = {name.split(".")[1] for name in moved if name.endswith("running_mean")}
    assert statistics == thawed


def test_vectors_are_spared_the_weight_decay() -> None:
    network = tiny()
    set_trainable(network, TrainConfig(TINY.name, train="all"))
    decayed, spared = make_optimizer(network, "sgd", 0.3).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert {parameter.ndim for parameter in spared["params"]} == {1}
    assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
