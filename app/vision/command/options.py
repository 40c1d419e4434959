"""Command-line options of a configuration, made from its hyper-parameters: a new field shows up by itself."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from app.vision.settings.config import TrainConfig
from app.vision.settings.hyper_parameter import HyperParameter, hyper_parameters, shown

_EXPECTED = {"N": "a whole number", "X": "a number", "N,...": "whole numbers with commas between them"}


@dataclass(frozen=True)
class Option:
    """A hyper-parameter as an option of a command line."""

    parameter: HyperParameter

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def flag(self) -> str:
        return option_name(self.name)

    @property
    def is_switch(self) -> bool:
        """Return whether the option is given without a value."""
        return self.parameter.types == (bool,)

    @property
    def metavar(self) -> str:
        """Return what may be given, for instance "N|auto"."""
        return "|".join(_metavar(part) for part in self.parameter.types)

    @property
    def help(self) -> str:
        """Return the meaning, and in brackets the bounds and the default."""
        parameter, default = self.parameter, ""
        if parameter.if_left_out is not None:
            default = parameter.if_left_out.said
        elif parameter.default not in (None, MISSING, ()):
            default = shown(parameter.default)
        facts = "; ".join(fact for fact in (parameter.range, f"default: {default}" if default else "") if fact)
        return f"{parameter.meaning} ({facts})" if facts else parameter.meaning

    def read(self, text: str) -> Any:
        """Return the option's text as a value of the field's type; raise ValueError that says what is expected."""
        for one in self.parameter.types:
            try:
                return _read(one, text)
            except ValueError:
                continue
        expected = ", ".join(_EXPECTED.get(word, word) for word in self.metavar.split("|"))
        raise ValueError(f"{text!r} cannot be read; use {expected}.")


def options_of(config: type[Any] = TrainConfig) -> Iterator[Option]:
    """Yield an option for every field of the dataclass, and of the dataclasses that are fields of it."""
    for parameter in hyper_parameters(config).values():
        yield Option(parameter)


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
        if option.is_switch:
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
    """Return the option of a field: "--head-hidden" for "head.hidden"."""
    return "--" + name.replace(".", "-").replace("_", "-")


def what_learns() -> str:
    """Return the help of `--train`, which says in one what the fields `train` and `last_stages` hold."""
    parameter = hyper_parameters(TrainConfig)["train"]
    return f"{parameter.meaning} N: so many of the last stages. (default: {parameter.default})"


def config_values(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, nested as `TrainConfig.from_dict` reads it."""
    known = {item.name for item in fields(TrainConfig)}
    return nested({name: value for name, value in vars(namespace).items() if name.split(".")[0] in known})


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"head.dropout": 0.5} as {"head": {"dropout": 0.5}}."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
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
    return {int: "N", float: "X", str: "TEXT"}.get(hint, "JSON")


def _read(hint: Any, text: str) -> Any:
    """Return the text as this type; raise ValueError where it is none."""
    if get_origin(hint) is Literal:
        for value in get_args(hint):
            if str(value) == text:
                return value
        raise ValueError(text)
    if get_origin(hint) is tuple and _is_simple(get_args(hint)[0]):
        return [_read(get_args(hint)[0], part.strip()) for part in text.split(",") if part.strip()]
    return hint(text) if hint in (int, float, str) else json.loads(text)


def _is_simple(hint: Any) -> bool:
    return hint in (int, float, str) or get_origin(hint) is Literal
