"""Measures how far an image lies from all that a model was trained on, by the features of its trunk.

The distance is Mahalanobis's to the nearest class mean (Lee et al. 2018, arXiv:1807.03888), under one covariance that
all classes share, shrunk as Ledoit & Wolf 2004 (doi:10.1016/S0047-259X(03)00096-4) would: a few hundred images do not
tell the spread of thousands of features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SAMPLE = 2048  # training images that the statistics are taken from, about as many of each class
LEAST_OF_A_CLASS = 8  # or all there are
DIRECTIONS = 256  # of the largest spread that are told apart; in all others it is taken to be the same
KNOWN_SHARE = 0.95  # of images like those of training that are not to be called unknown
LEAST_IMAGES = 19  # held-out ones that a limit needs: the farthest of so many has that share within it, on average


@dataclass(frozen=True)
class OodScorer:
    """Computes OOD scores from statistics of training features, and from the distance past which an image is unknown.

    All tensors are float32 on the CPU. `centre` [F] is the mean of all, `directions` [F, K] are orthonormal, `gains`
    [K] and `scale` [] undo the spread along and beside them, `means` [C, F] are those of the classes with the spread
    undone.
    """

    centre: Tensor
    directions: Tensor
    gains: Tensor
    scale: Tensor
    means: Tensor
    limit: float = math.inf

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def distances(self, features: Tensor) -> Tensor:
        """Return float32 [N]: how far features [N, F] lie from the nearest class mean."""
        points = self._whitened(features.float() - self.centre)
        squares = (points**2).sum(dim=1, keepdim=True) - 2 * points @ self.means.T + (self.means**2).sum(dim=1)
        return squares.amin(dim=1).clamp(min=0).sqrt()

    def scores(self, features: Tensor) -> Tensor:
        """Return float32 [N]: the distances in units of the limit. Past 1 an image is unknown."""
        return self.distances(features) / self.limit

    def limited(self, distances: NDArray[np.float32]) -> OodScorer:
        """Return the same with its limit set by LEAST_IMAGES or more held-out images of the same kind.

        Of further such images the share `1 - expected_unknown(N)` lies within it, if all come from one source.
        """
        return replace(self, limit=max(float(np.sort(distances)[_rank(len(distances)) - 1]), 1e-6))

    def tensors(self) -> dict[str, Tensor]:
        """Return all but the limit, by name."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> OodScorer:
        """Return what `tensors` and {"limit": …} describe.

        Raises TypeError or ValueError for what does not fit together.
        """
        scorer = cls(**tensors, limit=float(document["limit"]))
        features, directions = scorer.directions.shape
        shapes = [tuple(one.shape) for one in (scorer.centre, scorer.gains, scorer.scale)]
        if shapes != [(features,), (directions,), ()] or scorer.means.shape[1:] != (features,) or scorer.limit <= 0:
            raise ValueError("statistics of features that do not fit together")
        return scorer

    def _whitened(self, centred: Tensor) -> Tensor:
        return (centred + (centred @ self.directions * self.gains) @ self.directions.T) / self.scale


def expected_unknown(held_out: int) -> float:
    """Return the share of images of the known kind that a limit set on so many of them calls unknown, on average."""
    return 1 - _rank(held_out) / (held_out + 1)


def _rank(held_out: int) -> int:
    """Return which of so many distances, from 1, is the limit: a further one is as likely to fall between any two."""
    return min(held_out, math.ceil((held_out + 1) * KNOWN_SHARE))


def sample_rows(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the training images, as rows, that statistics are taken from, spread evenly over each class."""
    classes, counts = np.unique(labels, return_counts=True)
    most = max(LEAST_OF_A_CLASS, SAMPLE // len(classes))
    rows = [
        np.flatnonzero(labels == label)[np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))]
        for label, count in zip(classes, counts, strict=True)
    ]
    return np.sort(np.concatenate(rows))


def fit_ood(features: Tensor, labels: NDArray[np.int64]) -> OodScorer:
    """Return statistics of features [N, F] with labels [N], N at least 2. The limit is still to be set."""
    points = features.cpu().double()
    centre = points.mean(dim=0)
    points = points - centre
    classes, places = np.unique(labels, return_inverse=True)
    means = torch.stack([points[torch.from_numpy(labels == label)].mean(dim=0) for label in classes])
    within = points - means[torch.from_numpy(places)]
    variances, directions = _spread(within)
    total = float((within**2).sum()) / len(within)
    size = within.shape[1]
    shrinkage = _shrinkage(within, variances, total)
    isotropic = shrinkage * total / size
    rest = max(total - float(variances.sum()), 0.0) / max(size - len(variances), 1)
    scale = math.sqrt(max(isotropic + (1 - shrinkage) * rest, 1e-12))
    gains = scale / ((1 - shrinkage) * variances + isotropic).clamp(min=1e-12).sqrt() - 1
    found = OodScorer(
        centre.float(), directions.float().contiguous(), gains.float(), torch.tensor(scale, dtype=torch.float32), means
    )
    return replace(found, means=found._whitened(means.float()))


def _spread(within: Tensor) -> tuple[Tensor, Tensor]:
    """Return variances [K] and directions [F, K] of the largest spread of centred features [N, F], float64."""
    count, size = within.shape
    if count >= size:
        variances, directions = torch.linalg.eigh(within.T @ within / count)
        variances, directions = variances[-DIRECTIONS:], directions[:, -DIRECTIONS:]
    else:  # the same from the products of images, of which there are fewer
        variances, images = torch.linalg.eigh(within @ within.T / count)
        kept = variances > variances[-1].clamp(min=1e-12) * 1e-9
        variances, images = variances[kept][-DIRECTIONS:], images[:, kept][:, -DIRECTIONS:]
        directions = within.T @ images / (variances * count).sqrt()
    return variances.clamp(min=0), directions


def _shrinkage(within: Tensor, variances: Tensor, total: float) -> float:
    """Return how far the covariance is to be moved towards equal spread everywhere, 0..1 (Ledoit & Wolf 2004)."""
    count, size = within.shape
    squares = float((variances**2).sum())  # the directions that are left out add next to nothing
    apart = squares - total**2 / size
    noise = (float(((within**2).sum(dim=1) ** 2).sum()) / count - squares) / count
    return min(1.0, max(0.0, noise / apart)) if apart > 0 else 1.0
