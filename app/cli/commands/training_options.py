"""The options of `graft train` that say how to train: one for each hyper-parameter of the training library."""

import inspect
from collections.abc import Callable, Iterator
from types import GenericAlias
from typing import Annotated, Any

import typer

from app.vision.command.options import Option, nested, option_name, options_of, what_learns
from app.vision.settings.config import TrainConfig

# The service takes these in another way than the library, and the command has options of its own for them.
OTHERWISE = {"backbone", "base_model", "train", "last_stages"}

WHAT_LEARNS = what_learns()
WIDEST = 20  # characters of what is shown beside an option
_HEAD = "head."  # is left out of an option's name: --dropout


def with_training_options(command: Callable[..., None], config: type[Any] = TrainConfig) -> Callable[..., None]:
    """Return the command with an option for each field; `asked` reads its `**fields`."""
    own = inspect.signature(command)
    parameters = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=[*parameters, *_parameters(config)])  # type: ignore[attr-defined]
    return command


def asked(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of the options, as the service reads it."""
    return nested({name.replace("__", "."): value for name, value in fields.items() if value not in (None, [])})


def _parameters(config: type[Any]) -> Iterator[inspect.Parameter]:
    for option in options_of(config):
        if option.name not in OTHERWISE:
            kind, shown = _shown(option)
            yield inspect.Parameter(
                option.name.replace(".", "__"),  # a name may hold no point
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, shown],
            )


def _shown(option: Option) -> tuple[Any, Any]:
    """Return the option's type for typer, and the option."""
    flag, panel = option_name(option.name.removeprefix(_HEAD)), "How to train"
    if option.is_switch:
        return bool, typer.Option(flag, help=option.help, rich_help_panel=panel)
    if (entry := option.parameter.entry) in (int, float):
        meaning = f"{option.help} May be repeated."
        return GenericAlias(list, (entry,)), typer.Option(flag, help=meaning, rich_help_panel=panel)

    def read(text: str) -> Any:
        try:
            return option.read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    metavar, meaning = option.metavar, option.help
    if len(metavar) > WIDEST:  # the column of all of them would be as wide
        metavar, meaning = "NAME", f"{metavar.replace('|', ', ')}: {meaning[0].lower()}{meaning[1:]}"
    return str, typer.Option(flag, parser=read, metavar=metavar, help=meaning, rich_help_panel=panel)
