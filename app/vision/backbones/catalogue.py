"""Lists the pretrained backbones: size, cost, accuracy and where the weights are published."""

from __future__ import annotations

from dataclasses import dataclass

from app.vision.errors import UnknownBackbone

PUBLISHED_AT = "https://download.pytorch.org/models/"


@dataclass(frozen=True, slots=True)
class Backbone:
    """Is one pretrained network. Figures are those published with the weights (torchvision's `Weights.meta`)."""

    name: str
    family: str  # "resnet", "resnext", "wide_resnet" or "vgg"
    depth: int  # layers with weights, as in the network's name
    parameters: int  # with the head it was pretrained with
    gflops: float  # multiply-adds of one image of the published evaluation size, in 10^9
    input_size: int  # recommended side of the square input, pixels
    resize_size: int  # side that evaluation images are resized to before the centre crop of `input_size`, pixels
    imagenet_top1: float | None  # per cent, ImageNet-1k validation
    imagenet_top5: float | None
    weights_file: str
    weights_url: str  # empty for a bundled backbone
    stages: int  # how many stages can be unfrozen one after the other, the stem included
    advice: str
    bundled: bool = False


def _published(
    name: str,
    family: str,
    depth: int,
    parameters: int,
    gflops: float,
    top1: float,
    top5: float,
    digest: str,
    resize_size: int,
    advice: str,
) -> Backbone:
    file = f"{name}-{digest}.pth"
    return Backbone(
        name, family, depth, parameters, gflops, 224, resize_size, top1, top5, file, PUBLISHED_AT + file, 5, advice
    )


_TINY = Backbone(
    name="resnet18-tiny64",
    family="resnet",
    depth=18,
    parameters=11_279_112,
    gflops=0.333,
    input_size=96,
    resize_size=96,
    imagenet_top1=None,
    imagenet_top5=None,
    weights_file="resnet18-tiny64.safetensors",
    weights_url="",
    stages=5,
    advice="Ships with the package and needs no network. Good for a first run and for tests; any backbone with"
    " ImageNet weights is far more accurate.",
    bundled=True,
)

_BN = "VGG with batch norm: trains more steadily than plain VGG, but a ResNet of its accuracy is several times cheaper."
_VGG = "Plain VGG, kept for comparison with older work: a ResNet of its accuracy is several times cheaper."

# fmt: off
_TABLE = (
    _published("resnet18", "resnet", 18, 11_689_512, 1.814, 69.758, 89.078, "f37072fd", 256,
               "The place to start: fast on a CPU and good with a few hundred images."),
    _published("resnet34", "resnet", 34, 21_797_672, 3.664, 73.314, 91.420, "b627a593", 256,
               "A step up from resnet18 at twice the cost, still comfortable on a CPU."),
    _published("resnet50", "resnet", 50, 25_557_032, 4.089, 80.858, 95.434, "11ad3fa6", 232,
               "The usual choice when a GPU is at hand: much more accurate for little more compute than resnet34."),
    _published("resnet101", "resnet", 101, 44_549_160, 7.801, 81.886, 95.780, "cd907fc2", 232,
               "A little more accurate than resnet50 at twice the cost."),
    _published("resnet152", "resnet", 152, 60_192_808, 11.514, 82.284, 96.002, "f82ba261", 232,
               "The deepest plain ResNet; for large data sets and a GPU."),
    _published("resnext50_32x4d", "resnext", 50, 25_028_904, 4.230, 81.198, 95.340, "1a0047aa", 232,
               "Grouped convolutions: about resnet101's accuracy near resnet50's cost, slower on CPUs."),
    _published("resnext101_32x8d", "resnext", 101, 88_791_336, 16.414, 82.834, 96.228, "110c445d", 232,
               "Among the most accurate here; needs a GPU."),
    _published("resnext101_64x4d", "resnext", 101, 83_455_272, 15.460, 83.246, 96.454, "173b62eb", 232,
               "The most accurate here; needs a GPU."),
    _published("wide_resnet50_2", "wide_resnet", 50, 68_883_240, 11.398, 81.602, 95.758, "9ba9bcbe", 232,
               "Twice as wide as resnet50; keeps a GPU busier than a deep network of its cost."),
    _published("wide_resnet101_2", "wide_resnet", 101, 126_886_696, 22.753, 82.510, 96.020, "d733dc28", 232,
               "The costliest here; resnext101_64x4d is cheaper and more accurate."),
    _published("vgg11", "vgg", 11, 132_863_336, 7.609, 69.020, 88.628, "8a719046", 256, _VGG),
    _published("vgg11_bn", "vgg", 11, 132_868_840, 7.609, 70.370, 89.810, "6002323d", 256, _BN),
    _published("vgg13", "vgg", 13, 133_047_848, 11.308, 69.928, 89.246, "19584684", 256, _VGG),
    _published("vgg13_bn", "vgg", 13, 133_053_736, 11.308, 71.586, 90.374, "abd245e5", 256, _BN),
    _published("vgg16", "vgg", 16, 138_357_544, 15.470, 71.592, 90.382, "397923af", 256, _VGG),
    _published("vgg16_bn", "vgg", 16, 138_365_992, 15.470, 73.360, 91.516, "6c64b313", 256, _BN),
    _published("vgg19", "vgg", 19, 143_667_240, 19.632, 72.376, 90.876, "dcbb9e9d", 256, _VGG),
    _published("vgg19_bn", "vgg", 19, 143_678_248, 19.632, 74.218, 91.842, "c79401a0", 256, _BN),
    _TINY,
)
# fmt: on

BACKBONES: dict[str, Backbone] = {backbone.name: backbone for backbone in _TABLE}


def get_backbone(name: str) -> Backbone:
    """Return the backbone called `name`; raises UnknownBackbone, which names the nearest match."""
    try:
        return BACKBONES[name]
    except KeyError:
        raise UnknownBackbone(name, BACKBONES) from None
