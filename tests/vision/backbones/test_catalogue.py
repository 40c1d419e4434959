"""The catalogue against torchvision's own metadata, and the choice of a default."""

from __future__ import annotations

from pathlib import Path

import pytest
import torchvision.models

from app.vision.backbones.catalogue import BACKBONES, Backbone, get_backbone
from app.vision.backbones.weights import WeightStore, default_backbone
from app.vision.errors import UnknownBackbone
from app.vision.networks.network import build_network, stage_names
from app.vision.settings.config import HeadConfig

PUBLISHED = [backbone for backbone in BACKBONES.values() if not backbone.bundled]


@pytest.mark.parametrize("backbone", PUBLISHED, ids=lambda backbone: backbone.name)
def test_figures_are_those_published_with_the_weights(backbone: Backbone) -> None:
    weights = torchvision.models.get_model_weights(backbone.name).DEFAULT
    metrics = weights.meta["_metrics"]["ImageNet-1K"]
    transforms = weights.transforms()
    assert backbone.parameters == weights.meta["num_params"]
    assert backbone.gflops == weights.meta["_ops"]
    assert (backbone.imagenet_top1, backbone.imagenet_top5) == (metrics["acc@1"], metrics["acc@5"])
    assert backbone.weights_url == weights.url
    assert weights.url.endswith("/" + backbone.weights_file)
    assert (transforms.resize_size, transforms.crop_size) == ([backbone.resize_size], [backbone.input_size])


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=lambda backbone: backbone.name)
def test_stages_are_those_of_the_network(backbone: Backbone) -> None:
    network = build_network(backbone, 3, HeadConfig())
    assert len(stage_names(network)) == backbone.stages
    assert stage_names(network)[0] in ("layer4", "block5")


def test_catalogue_covers_every_resnet_and_vgg_of_torchvision() -> None:
    families = ("resnet", "resnext", "wide_resnet", "vgg")
    names = {name for name in torchvision.models.list_models(module=torchvision.models) if name.startswith(families)}
    assert names == {backbone.name for backbone in PUBLISHED}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownBackbone, match="Did you mean 'resnet50'") as caught:
        get_backbone("resnet-50")
    assert "vgg19_bn" in str(caught.value)


def test_default_is_resnet18_only_where_its_file_lies(tmp_path: Path) -> None:
    store = WeightStore(directory=tmp_path / "weights", cache=tmp_path / "cache")
    assert default_backbone(store) == "resnet18-tiny64"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / get_backbone("resnet18").weights_file).write_bytes(b"x")
    assert default_backbone(store) == "resnet18"
