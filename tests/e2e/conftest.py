"""What the end-to-end tests start from: an empty database, a bucket, a weights file."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
import torch
from safetensors.torch import load_file

from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import BUNDLED

_numbers = count()


@pytest.fixture(scope="session")
def empty_postgres(postgres_url: Callable[[str], str]) -> Iterator[Callable[[], str]]:
    """Makes databases with nothing in them, not even tables."""
    made = []

    def make() -> str:
        made.append(f"graft_e2e_{os.getpid()}_{next(_numbers)}")
        with psycopg.connect(postgres_url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {made[-1]}")  # type: ignore[call-overload]
        return postgres_url(made[-1])

    yield make
    with psycopg.connect(postgres_url("postgres"), autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def resnet18_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file as torchvision publishes ResNet-18: its name, its keys, a head of 1,000 classes.

    The trunk is the bundled one, for ImageNet's cannot be had without a network.
    """
    folder = tmp_path_factory.mktemp("weights")
    state = {name: tensor.float() for name, tensor in load_file(BUNDLED / "resnet18-tiny64.safetensors").items()}
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    for name in [key for key in state if key.endswith("running_mean")]:
        state[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    torch.save(state, folder / get_backbone("resnet18").weights_file)
    return folder
