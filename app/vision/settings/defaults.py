"""Defaults that depend on other fields of a configuration: on what learns, the optimizer, the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.vision.backbones.catalogue import get_backbone
from app.vision.settings.hyper_parameter import Derived, shown


def always(value: Any) -> Derived:
    """Return the default that is this value for every configuration."""
    return Derived(lambda _: value, shown(value))


def head_else(head: Any, otherwise: Any) -> Derived:
    """Return the default of a field that has one value behind a frozen trunk and another where stages learn."""
    return Derived(lambda config: head if config.train == "head" else otherwise, _head_else(head, otherwise))


def by_optimizer(values: Mapping[str, tuple[float, float]]) -> Derived:
    """Return the default of a field by optimizer: its value behind a frozen trunk, and where stages learn."""
    alike: dict[tuple[float, float], list[str]] = {}
    for optimizer, pair in values.items():
        alike.setdefault(pair, []).append(optimizer)
    said = "; ".join(f"{' and '.join(optimizers)} {_head_else(*pair)}" for pair, optimizers in alike.items())
    return Derived(lambda config: values[config.optimizer][0 if config.train == "head" else 1], said)


def unless_searched(default: Derived) -> Derived:
    """Return the default of the learning rate: None where `find_rate` will find it."""
    return Derived(lambda config: None if config.find_rate else default.value(config), default.said)


OWN_INPUT_SIZE = Derived(lambda config: get_backbone(config.backbone).input_size, "the backbone's own")


def _head_else(head: Any, otherwise: Any) -> str:
    return shown(head) if head == otherwise else f"{shown(head)} for the head, else {shown(otherwise)}"
