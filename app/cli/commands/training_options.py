"""The options of `graft train` that say how to train: one for each field of the training library's configuration."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from app.vision.command.options import Option, options_of

# What the service reads in another way than the library; the command has options of its own for these.
OTHERWISE = {"backbone", "base_model", "train", "last_stages", "head.hidden", "head.dropout", "head.pooling"}

WIDEST = 20  # characters of what is shown beside an option


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose `**fields` hold what was given of them, and None for what was not."""
    own = inspect.signature(command)
    parameters = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=[*parameters, *_parameters()])  # type: ignore[attr-defined]
    return command


def _parameters() -> Iterator[inspect.Parameter]:
    for option in options_of():
        if option.name not in OTHERWISE:
            kind: Any = bool if option.hint is bool else str
            yield inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, _shown(option)],
            )


def _shown(option: Option) -> Any:
    panel = "How to train"
    if option.hint is bool:
        return typer.Option(option.flag, help=option.help, rich_help_panel=panel)

    def read(text: str) -> Any:
        try:
            return option.read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    metavar, meaning = option.metavar, option.help
    if len(metavar) > WIDEST:  # the column of all of them would be as wide
        metavar, meaning = "NAME", f"{metavar.replace('|', ', ')}: {meaning[0].lower()}{meaning[1:]}"
    return typer.Option(option.flag, parser=read, metavar=metavar, help=meaning, rich_help_panel=panel)
