"""The network is a pretrained trunk in stages, with pooled features, and the head that is grafted on."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import torch
from torch import Tensor, nn

from app.vision.backbones.catalogue import Backbone, get_backbone
from app.vision.backbones.torchvision_models import get_model
from app.vision.settings.config import HeadConfig, Pooling, TrainConfig


class Head(nn.Module):
    """Computes `outputs` numbers, together called `name`, from pooled features [N, F].

    It standardises, then has linear layers with ReLU between them. Behind a frozen trunk `mean` and `scale` are those
    of its features (see `standardise`), so that one rate suits backbones whose features differ tenfold in size. The
    last layer starts at zero: all classes equally likely.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, outputs: int, config: HeadConfig, name: str = "logits") -> None:
        super().__init__()
        self.name = name
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        sizes = [features, *config.hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Dropout(config.dropout), nn.Linear(before, after), nn.ReLU()]
        last = nn.Linear(sizes[-1], outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, nn.Dropout(config.dropout), last)

    def forward(self, features: Tensor) -> Tensor:
        """Return float32 [N, outputs]."""
        found: Tensor = self.layers((features - self.mean) / self.scale)
        return found

    def standardise(self, features: Tensor) -> None:
        """Take mean and spread from training features [N, F]; a feature that hardly varies is not blown up."""
        spread = features.std(dim=0, correction=0)
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(spread.clamp(min=max(float(spread.mean()) * 0.1, 1e-6)))


class Network(nn.Module):
    """Has a `trunk` that gives features [N, F] of normalised images [N, 3, H, W], and the `head` on top of them."""

    def __init__(self, trunk: nn.Sequential, head: Head) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.learning: tuple[str, ...] = ()  # the names of the trunk's stages that learn, sooner or later
        self.thawed: tuple[str, ...] = ()  # those of them that learn now

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return the names of what `outputs` gives, in its order."""
        return (self.head.name, "features")

    @property
    def features(self) -> int:
        """Return the number of features that the trunk gives of an image."""
        return len(self.head.mean)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.trunk(images).float())
        return found

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Return what the head gives and the features that it is computed from, float32 and by name."""
        features: Tensor = self.trunk(images).float()
        return {self.head.name: self.head(features), "features": features}

    def train(self, mode: bool = True) -> Network:
        """Set the mode, except that frozen stages stay in evaluation: their batch norm statistics must not drift."""
        super().train(mode)
        for name, stage in self.trunk.named_children():
            if name not in self.thawed:
                stage.eval()
        return self


class Pool(nn.Module):
    """Makes one feature of each map: [N, F, H, W] → [N, F].

    "gem" is the generalised mean (Radenović et al. 2018, arXiv:1711.02512) with their initial exponent, which stays:
    behind a frozen trunk it could not be learnt.
    """

    EXPONENT = 3.0

    def __init__(self, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, maps: Tensor) -> Tensor:
        if self.pooling == "max":
            return maps.amax(dim=(2, 3))
        if self.pooling == "gem":
            powers = maps.float().clamp(min=1e-6) ** self.EXPONENT
            return powers.mean(dim=(2, 3)) ** (1 / self.EXPONENT)
        return maps.mean(dim=(2, 3))


def build_network(
    backbone: Backbone, outputs: int, head: HeadConfig, *, seed: int = 0, name: str = "logits"
) -> Network:
    """Return a network with an initialised head and a trunk that holds no memory yet (meta tensors): see `load_trunk`.

    The head gives `outputs` numbers an image, which go by `name`.
    """
    with torch.device("meta"):
        trunk = _trunk(backbone, head.pooling)
        features = next(tensor.shape[0] for tensor in reversed(list(trunk.parameters())))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(trunk, Head(features, outputs, head, name))


def _trunk(backbone: Backbone, pooling: Pooling = "avg") -> nn.Sequential:
    """Return torchvision's layers, regrouped into stages from the image to the features."""
    model = get_model(backbone.name.partition("-")[0], weights=None)
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    if backbone.family == "vgg":
        block: list[nn.Module] = []
        for layer in model.features:
            block.append(layer)
            if isinstance(layer, nn.MaxPool2d):
                stages[f"block{len(stages) + 1}"] = nn.Sequential(*block)
                block = []
    else:
        stem = OrderedDict(conv1=model.conv1, bn1=model.bn1, relu=model.relu, maxpool=model.maxpool)
        stages["stem"] = nn.Sequential(stem)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            stages[name] = getattr(model, name)
    stages["pool"] = Pool(pooling)
    return nn.Sequential(stages)


def load_trunk(network: Network, backbone: Backbone, published: dict[str, Tensor]) -> None:
    """Fill the trunk from a state dict with torchvision's names; raises ValueError if the two do not belong together.

    The pretrained classifier is left out: of a VGG that is nine tenths of the parameters, and mean-pooled features
    of the last block serve a new head as well.
    """
    state: dict[str, Tensor] = {}
    for name, expected in network.trunk.state_dict().items():
        source = _published_name(name, backbone)
        if name.endswith("num_batches_tracked"):
            tensor = published.get(source, torch.zeros((), dtype=torch.long))
        elif source in published:
            tensor = published[source]
        else:
            raise ValueError(f"no tensor {source}")
        if tensor.shape != expected.shape:
            raise ValueError(f"{source} has shape {list(tensor.shape)}, expected {list(expected.shape)}")
        state[name] = tensor
    network.trunk.load_state_dict(state, assign=True)


def _published_name(name: str, backbone: Backbone) -> str:
    if backbone.family != "vgg":
        return name.removeprefix("stem.")
    # torchvision numbers a VGG's layers straight through; the blocks here restart at zero.
    block, layer, tensor = name.split(".", 2)
    model_index = _block_starts(backbone)[int(block.removeprefix("block")) - 1] + int(layer)
    return f"features.{model_index}.{tensor}"


def _block_starts(backbone: Backbone) -> list[int]:
    with torch.device("meta"):
        sizes = [len(stage) for stage in _trunk(backbone) if isinstance(stage, nn.Sequential)]
    return [sum(sizes[:index]) for index in range(len(sizes))]


def stage_names(network: Network) -> list[str]:
    """Return the trunk's stages in the order in which they thaw: nearest the head first."""
    return [name for name, stage in network.trunk.named_children() if not isinstance(stage, Pool)][::-1]


def set_trainable(network: Network, config: TrainConfig) -> None:
    """Let the head learn, and as many stages as `config.train` says; freeze the rest, batch norms included."""
    network.learning = tuple(stage_names(network)[: config.thawed_stages(get_backbone(config.backbone))])
    network.head.requires_grad_(True)
    _thaw(network, len(network.learning))


def thaw(network: Network, config: TrainConfig, epoch: int) -> None:
    """Let learn what is to learn in `epoch` (from 0), of what may learn.

    It is gradual unfreezing (Howard & Ruder 2018, arXiv:1801.06146).
    Without `unfreeze_every` everything learns from the start. Takes effect on batch norms with the next `train()`.
    """
    _thaw(network, epoch // config.unfreeze_every if config.unfreeze_every else len(network.learning))


def _thaw(network: Network, stages: int) -> None:
    network.thawed = network.learning[:stages]
    network.trunk.requires_grad_(False)
    for name in network.thawed:
        network.trunk.get_submodule(name).requires_grad_(True)


def learned_state(network: Network) -> dict[str, Tensor]:
    """Return what training changes of the state dict: the head and the learning stages with their statistics."""
    state: dict[str, Tensor] = {}
    for name, stage in network.trunk.named_children():
        if name in network.learning:
            stage.state_dict(destination=state, prefix=f"trunk.{name}.")
    network.head.state_dict(destination=state, prefix="head.")
    return state
