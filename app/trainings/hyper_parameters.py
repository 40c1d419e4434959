"""Fields of a request's schema, made from the hyper-parameters of the training library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING
from types import GenericAlias
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, create_model

from app.vision.errors import InvalidConfig
from app.vision.settings.bounds import check
from app.vision.settings.hyper_parameter import HyperParameter, hyper_parameters

Model = TypeVar("Model", bound=BaseModel)


def with_hyper_parameters(
    config: type[Any],
    *,
    without: frozenset[str] = frozenset(),
    forms: Mapping[str, Any] | None = None,
    more: Mapping[str, str] | None = None,
) -> Callable[[type[Model]], type[Model]]:
    """Return a decorator that gives a model a field for each field of the dataclass, after its own and in order.

    `without` names fields that are not asked for; the model's own of the same name stay as they are. `forms` has the
    types of fields that a caller spells in another way than the library, and `more` what is said of a field besides.
    """
    forms, more = forms or {}, more or {}

    def decorate(model: type[Model]) -> type[Model]:
        added: dict[str, Any] = {}
        for one in hyper_parameters(config).values():
            name = one.name.split(".")[0]
            if name in without or name in model.model_fields or name in added:
                continue
            if name != one.name:  # of a dataclass inside, which has a model of its own
                added[name] = (forms[name], forms[name]())
            else:
                added[name] = (forms.get(name) or _annotation(one), _field(one, more.get(name, "")))
        return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __module__=model.__module__, **added)

    return decorate


def description(parameter: HyperParameter, more: str = "") -> str:
    """Return what the API's documentation says of a field."""
    return " ".join(part for part in (parameter.meaning, left_out(parameter), more) if part)


def left_out(parameter: HyperParameter) -> str:
    """Return the sentence on a default that depends on other fields; empty where there is none."""
    return f"If left out: {parameter.if_left_out.said}." if parameter.if_left_out else ""


def bounds(parameter: HyperParameter) -> dict[str, Any]:
    """Return the bounds of a number as pydantic's `Field` takes them."""
    named = {"ge": parameter.at_least, "gt": parameter.above, "le": parameter.at_most}
    return {name: bound for name, bound in named.items() if bound is not None}


def _annotation(parameter: HyperParameter) -> Any:
    number = Annotated[parameter.number, Field(**bounds(parameter))] if parameter.number else None
    if parameter.entry is not None:
        return GenericAlias(list, (number,))
    hint: Any = None
    for part in parameter.types:
        allowed = number if part is parameter.number else part
        hint = allowed if hint is None else hint | allowed
    if parameter.is_optional:
        hint = hint | None
    if parameter.number and parameter.choices:  # one sentence, where pydantic has one for each of the types
        hint = Annotated[hint, BeforeValidator(_checked(parameter))]
    return hint


def _field(parameter: HyperParameter, more: str) -> Any:
    said = description(parameter, more)
    if parameter.default is MISSING:
        return Field(description=said)
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return Field(default=default, max_length=parameter.most_values, description=said)


def _checked(parameter: HyperParameter) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        try:
            check(parameter, value)
        except InvalidConfig as error:
            raise ValueError(str(error).removeprefix(f"{parameter.name}: ").rstrip(".")) from None
        return value

    return validate
