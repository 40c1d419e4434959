"""Command-line options for a configuration, derived from its dataclass: a new field shows up by itself."""

from __future__ import annotations

import argparse
import json
import types
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from app.vision.settings.config import TrainConfig
from app.vision.settings.descriptions import MEANINGS

_EXPECTED = {"N": "a whole number", "X": "a number", "N,...": "whole numbers with commas between them"}


@dataclass(frozen=True)
class Option:
    """A field as an option: `name` is "hidden", or "head.hidden" for field `hidden` of field `head`."""

    name: str
    hint: Any  # its type, None left out
    default: Any

    @property
    def flag(self) -> str:
        return option_name(self.name)

    @property
    def metavar(self) -> str:
        """What may be given, for instance "N|auto"."""
        return _metavar(self.hint)

    @property
    def help(self) -> str:
        meaning = MEANINGS.get(self.name, "")
        if self.default is None or self.default is MISSING or self.default == ():
            return meaning
        shown = ("yes" if self.default else "no") if isinstance(self.default, bool) else self.default
        return f"{meaning} (default: {shown:g})" if isinstance(shown, float) else f"{meaning} (default: {shown})"

    def read(self, text: str) -> Any:
        """The option's text as a value of the field's type; raises ValueError that says what is expected."""
        for one in get_args(self.hint) if _is_union(self.hint) else (self.hint,):
            try:
                return _read(one, text)
            except ValueError:
                continue
        expected = ", ".join(_EXPECTED.get(word, word) for word in self.metavar.split("|"))
        raise ValueError(f"{text!r} cannot be read; use {expected}.")


def options_of(config: type[Any] = TrainConfig, path: str = "") -> Iterator[Option]:
    """One for every field of the dataclass, and of the dataclasses that are fields of it."""
    hints = get_type_hints(config)
    for item in fields(config):
        hint = _unless_none(hints[item.name])
        if is_dataclass(hint) and isinstance(hint, type):
            yield from options_of(hint, f"{path}{item.name}.")
        else:
            yield Option(path + item.name, hint, item.default)


def add_config_options(
    parser: argparse._ActionsContainer, config: type[Any] = TrainConfig, *, without: Collection[str] = ()
) -> None:
    """Add the dataclass's options to a parser.

    What is not given does not appear in the namespace, so that the configuration's own defaults hold.
    """
    for option in options_of(config):
        if option.name in without:
            continue
        settings: dict[str, Any] = {
            "dest": option.name,
            "default": argparse.SUPPRESS,
            "help": option.help.replace("%", "%%"),
        }
        if option.hint is bool:
            parser.add_argument(option.flag, action=argparse.BooleanOptionalAction, **settings)
        else:
            parser.add_argument(option.flag, type=_for_argparse(option), metavar=option.metavar, **settings)


def _for_argparse(option: Option) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return option.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def option_name(name: str) -> str:
    """The option of a field: "head.hidden" → "--head-hidden"."""
    return "--" + name.replace(".", "-").replace("_", "-")


def config_values(namespace: argparse.Namespace) -> dict[str, Any]:
    """What was given, nested as `TrainConfig.from_dict` reads it."""
    values: dict[str, Any] = {}
    known = {item.name for item in fields(TrainConfig)}
    for name, value in vars(namespace).items():
        *parents, last = name.split(".")
        if (parents or [last])[0] not in known:
            continue
        inside = values
        for parent in parents:
            inside = inside.setdefault(parent, {})
        inside[last] = value
    return values


def _metavar(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "|".join(str(value) for value in get_args(hint))
    if get_origin(hint) is tuple and _is_simple(get_args(hint)[0]):
        return f"{_metavar(get_args(hint)[0])},..."
    if _is_union(hint):
        return "|".join(_metavar(option) for option in get_args(hint) if option is not types.NoneType)
    return {int: "N", float: "X", str: "TEXT"}.get(hint, "JSON")


def _read(hint: Any, text: str) -> Any:
    """Raises ValueError."""
    if get_origin(hint) is Literal:
        for value in get_args(hint):
            if str(value) == text:
                return value
        raise ValueError(text)
    if hint is types.NoneType:
        raise ValueError(text)
    if get_origin(hint) is tuple and _is_simple(get_args(hint)[0]):
        return [_read(get_args(hint)[0], part.strip()) for part in text.split(",") if part.strip()]
    return hint(text) if hint in (int, float, str) else json.loads(text)


def _is_simple(hint: Any) -> bool:
    return hint in (int, float, str) or get_origin(hint) is Literal


def _unless_none(hint: Any) -> Any:
    options = [option for option in get_args(hint) if option is not types.NoneType] if _is_union(hint) else []
    return options[0] if len(options) == 1 else hint


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)
