"""Shared names of the tests of the learning core: the bundled weights, and how a run is asked for."""

from collections.abc import Callable

from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import BUNDLED
from app.vision.training.result import FitResult

TINY = get_backbone("resnet18-tiny64")
WEIGHTS = BUNDLED / TINY.weights_file

# What two processes and one come to differs by rounding alone: sums in another order, over some steps of SGD.
TOLERANCE = 2e-4

# `fit` on the samples that the tests share; keywords are fields of the configuration.
Fit = Callable[..., FitResult]
