"""Checks of a configuration's values; each error names the field, the value and what to use instead."""

from __future__ import annotations

import math

from app.vision.errors import InvalidConfig


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """`value` is one of the words `allowed`."""
    if value not in allowed:
        raise InvalidConfig(name, f"{value!r} is not known; use one of {', '.join(allowed)}.")


def whole(name: str, value: object, low: int, high: int) -> None:
    """`value` is a whole number from `low` to `high`. None passes: it stands for a default."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidConfig(name, f"{value!r} is not allowed; use a whole number from {low} to {high}.")


def real(name: str, value: object, *, at_least: float = 0.0, above: float | None = None, up_to: float) -> None:
    """`value` is a finite number within the bounds. None passes: it stands for a default."""
    if value is None:
        return
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not at_least <= number <= up_to or (above is not None and number <= above):
        floor = f"above {above:g}" if above is not None else f"from {at_least:g}"
        raise InvalidConfig(name, f"{value!r} is not allowed; use a number {floor} up to {up_to:g}.")
