"""Command-line options for a configuration, derived from its dataclass: a new field shows up by itself."""

from __future__ import annotations

import argparse
import json
import types
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from app.vision.config import TrainConfig

Reader = Callable[[str], Any]

# What a person would ask about these fields; the others are told apart by their names and values.
HELP = {
    "backbone": "the pretrained network",
    "epochs": "passes over the training images",
    "batch_size": "images a step, or what fits into memory",
    "learning_rate": "its peak, after the warm-up",
    "input_size": "side of the square that the network sees, pixels",
    "target_precision": "of the answers that are to be accepted, 0.5 to 0.9999",
    "head.hidden": "units of the ReLU layers before the last one, separated by commas",
}


def add_config_options(
    parser: argparse._ActionsContainer,
    config: type[Any] = TrainConfig,
    *,
    without: Collection[str] = (),
    path: str = "",
) -> None:
    """Add an option for every field of the dataclass, `--head-hidden` for field `hidden` of field `head`.

    What is not given does not appear in the namespace, so that the configuration's own defaults hold.
    """
    hints = get_type_hints(config)
    for item in fields(config):
        name = path + item.name
        if name in without:
            continue
        hint = _unless_none(hints[item.name])
        if is_dataclass(hint) and isinstance(hint, type):
            add_config_options(parser, hint, without=without, path=f"{name}.")
            continue
        flag = option_name(name)
        settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(name, item)}
        if hint is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
        else:
            parser.add_argument(flag, type=_reader(hint, name), metavar=_metavar(hint), **settings)


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


def _help(name: str, item: Field[Any]) -> str:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    what = HELP.get(name, "")
    if default is None or default is MISSING or default == ():
        return what
    shown = ("yes" if default else "no") if isinstance(default, bool) else default
    return (f"{what} " if what else "") + f"(default: {shown})".replace("%", "%%")


def _metavar(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "|".join(str(value) for value in get_args(hint))
    if get_origin(hint) is tuple and _reader_is_simple(get_args(hint)[0]):
        return f"{_metavar(get_args(hint)[0])},..."
    if _is_union(hint):
        return "|".join(_metavar(option) for option in get_args(hint) if option is not types.NoneType)
    return {int: "N", float: "X", str: "TEXT"}.get(hint, "JSON")


def _reader(hint: Any, name: str) -> Reader:
    """Reads an option's text as a value of the type; what cannot be read is an error that says what is expected."""

    def read(text: str) -> Any:
        for option in get_args(hint) if _is_union(hint) else (hint,):
            try:
                return _read(option, text)
            except ValueError:
                continue
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read; use {_metavar(hint).replace('|', ', ')}")

    read.__name__ = name
    return read


def _read(hint: Any, text: str) -> Any:
    """Raises ValueError."""
    if get_origin(hint) is Literal:
        for value in get_args(hint):
            if str(value) == text:
                return value
        raise ValueError(text)
    if hint is types.NoneType:
        raise ValueError(text)
    if get_origin(hint) is tuple and _reader_is_simple(get_args(hint)[0]):
        return [_read(get_args(hint)[0], part.strip()) for part in text.split(",") if part.strip()]
    return hint(text) if hint in (int, float, str) else json.loads(text)


def _reader_is_simple(hint: Any) -> bool:
    return hint in (int, float, str) or get_origin(hint) is Literal


def _unless_none(hint: Any) -> Any:
    options = [option for option in get_args(hint) if option is not types.NoneType] if _is_union(hint) else []
    return options[0] if len(options) == 1 else hint


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)
