"""Checks of a configuration's values; each error names the field, the value and what to use instead."""

from __future__ import annotations

import math

from app.vision.errors import InvalidConfig
from app.vision.settings.hyper_parameter import HyperParameter


def check(parameter: HyperParameter, value: object) -> None:
    """Raise InvalidConfig where the value has another type than the field, or lies out of its bounds."""
    if value is None and parameter.is_optional:
        return
    if isinstance(value, tuple) and parameter.entry in (int, float):
        _check_list(parameter, value)
        return
    if not _fits(parameter, value):
        only_words = bool(parameter.choices) and parameter.number is None
        raise InvalidConfig(
            parameter.name, f"{value!r} is not {'known' if only_words else 'allowed'}; use {_expected(parameter)}."
        )


def check_number(name: str, value: object, *, at_least: float, at_most: float) -> None:
    """Raise InvalidConfig where the value is not a finite number within the bounds."""
    check(HyperParameter(name, float, None, at_least=at_least, at_most=at_most), value)


def _check_list(parameter: HyperParameter, values: tuple[object, ...]) -> None:
    if parameter.most_values is not None and len(values) > parameter.most_values:
        raise InvalidConfig(parameter.name, f"{len(values)} values; use at most {parameter.most_values}.")
    for value in values:
        if not _is_within(parameter, value):
            raise InvalidConfig(parameter.name, f"{value!r} is not allowed; use {_expected_number(parameter)}.")


def _fits(parameter: HyperParameter, value: object) -> bool:
    if isinstance(value, str) and value in parameter.choices:
        return True
    if isinstance(value, tuple):
        return parameter.entry is not None and all(isinstance(one, parameter.entry) for one in value)
    if parameter.number in parameter.types:
        return _is_within(parameter, value)
    return any(isinstance(value, one) for one in parameter.types if one in (bool, str))


def _is_within(parameter: HyperParameter, value: object) -> bool:
    kinds = int if parameter.number is int else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not math.isfinite(value):
        return False
    if parameter.above is not None and value <= parameter.above:
        return False
    low = -math.inf if parameter.at_least is None else parameter.at_least
    return low <= value <= (math.inf if parameter.at_most is None else parameter.at_most)


def _expected(parameter: HyperParameter) -> str:
    """Return what may be given, for instance 'a whole number from 1 to 4096, or "auto"'."""
    expected = []
    if parameter.number in parameter.types:
        expected.append(_expected_number(parameter))
        expected += [f'"{word}"' for word in parameter.choices]
    elif parameter.choices:
        expected.append(f"one of {', '.join(parameter.choices)}")
    if bool in parameter.types:
        expected.append("true or false")
    if str in parameter.types:
        expected.append("a text")
    if parameter.entry in (int, float):
        expected.append(f"a list, each entry {_expected_number(parameter)}")
    elif parameter.entry is not None:
        expected.append(f"a list of {parameter.entry.__name__.lower()}s")
    return ", or ".join(expected)


def _expected_number(parameter: HyperParameter) -> str:
    name = "a whole number" if parameter.number is int else "a number"
    low = f" above {parameter.above:g}" if parameter.above is not None else ""
    if parameter.at_least is not None:
        low = f" from {parameter.at_least:.10g}"
    if parameter.at_most is None:
        return f"{name}{low}"
    return f"{name}{low} {'to' if parameter.number is int else 'up to'} {parameter.at_most:.10g}"
