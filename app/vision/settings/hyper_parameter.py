"""A hyper-parameter is written once, as a field of a configuration; this is the record that everybody else reads."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Derived:
    """A default that depends on other fields: how it is found from the configuration, and how that is said."""

    value: Callable[[Any], Any]
    said: str


@dataclass(frozen=True, slots=True)
class HyperParameter:
    """A field of a configuration with all that is known of it; `hyper` says what the facts mean."""

    name: str  # "epochs", or "head.hidden" for the field `hidden` of the field `head`
    hint: Any  # its type; None is a part of it where it may be left out
    default: Any  # dataclasses.MISSING where there is none
    meaning: str = ""
    details: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    most_values: int | None = None
    if_left_out: Derived | None = None
    log: bool = False
    only_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def types(self) -> tuple[Any, ...]:
        """Return the types that the hint is a union of, without None."""
        parts = get_args(self.hint) if get_origin(self.hint) in (Union, types.UnionType) else (self.hint,)
        return tuple(part for part in parts if part is not types.NoneType)

    @property
    def is_optional(self) -> bool:
        return types.NoneType in get_args(self.hint)

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the words that are allowed, alone or beside a number or a list."""
        return tuple(word for part in self.types if get_origin(part) is Literal for word in get_args(part))

    @property
    def entry(self) -> Any:
        """Return the type of the entries where a list is allowed, else None."""
        return next((get_args(part)[0] for part in self.types if get_origin(part) is tuple), None)

    @property
    def number(self) -> type[int] | type[float] | None:
        """Return `int` or `float` where a number is allowed, or a list of them, else None."""
        return next((part for part in (*self.types, self.entry) if part in (int, float)), None)

    @property
    def range(self) -> str:
        """Return the bounds in words, such as "1 to 64" or "above 0, up to 10"; empty where there are none."""
        most = "" if self.at_most is None else shown(self.at_most)
        if self.above is not None:
            return f"above {shown(self.above)}" + (f", up to {most}" if most else "")
        if self.at_least is not None:
            return f"{shown(self.at_least)} to {most}" if most else f"from {shown(self.at_least)}"
        return f"up to {most}" if most else ""


def hyper(
    default: T,
    meaning: str,
    *,
    details: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    most_values: int | None = None,
    if_left_out: Derived | None = None,
    log: bool = False,
    only_with: Mapping[str, tuple[str, ...]] | None = None,
) -> T:
    """Return a dataclass field with this default, which holds the facts that `hyper_parameters` reads.

    `meaning` is one or two sentences that the API's schema, the terminals and the guide show; `details` are the guide's
    alone. Bounds are those of the number, or of each number of a list, and `most_values` that of a list's length.
    `if_left_out` is what None comes to. `log`: values are best compared by factors, as 0.001, 0.003 and 0.01.
    `only_with` names the fields, and their values, without which this field changes nothing.
    """
    facts = {
        "meaning": meaning,
        "details": details,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "most_values": most_values,
        "if_left_out": if_left_out,
        "log": log,
        "only_with": only_with or {},
    }
    return field(default=default, metadata=facts)


def hyper_parameters(config: type[Any]) -> Mapping[str, HyperParameter]:
    """Return every field of the dataclass by name, those of dataclasses inside it as "head.hidden", in order."""
    return _read(cast("Any", config))


@cache
def _read(config: type[Any]) -> Mapping[str, HyperParameter]:
    return {one.name: one for one in _walk(config, "")}


def _walk(config: type[Any], path: str) -> Iterator[HyperParameter]:
    hints = get_type_hints(config)
    for item in fields(config):
        one = HyperParameter(path + item.name, hints[item.name], item.default, **item.metadata)
        if len(one.types) == 1 and isinstance(one.types[0], type) and is_dataclass(one.types[0]):
            yield from _walk(one.types[0], f"{one.name}.")
        else:
            yield one


def value_of(config: Any, name: str) -> Any:
    """Return the configuration's value of "epochs", or of "head.hidden"."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def shown(value: object) -> str:
    """Return a value as a person writes it: 10 for 10.0, yes and no for a bool."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
