"""A hyper-parameter is written once: the checks, the schema, both command lines and the guide say the same of it."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from dataclasses import dataclass
from typing import Any, Literal, cast

import pytest
import typer
from pydantic import ValidationError
from typer.testing import CliRunner

from app.cli.commands.training_options import OTHERWISE, asked, with_training_options
from app.trainings.hyper_parameters import with_hyper_parameters
from app.trainings.reference import fields_table
from app.trainings.schemas import TrainRequest
from app.vision.command.options import add_config_options, options_of
from app.vision.errors import InvalidConfig
from app.vision.settings.config import TrainConfig
from app.vision.settings.hyper_parameter import HyperParameter, hyper, hyper_parameters, shown, value_of

PARAMETERS = hyper_parameters(TrainConfig)


@dataclass(frozen=True, slots=True)
class Grown(TrainConfig):
    """The configuration with new fields, each of which is written here and nowhere else."""

    sharpness: float = hyper(0.5, "How sharp edges become.", details="Try 1.", above=0, at_most=2, log=True)
    rounds: int | Literal["most"] | None = hyper(None, "How often.", at_least=1, at_most=9)
    order: Literal["up", "down"] = hyper("up", "In which order.", only_with={"train": ("all",)})


@with_hyper_parameters(Grown, without=frozenset({"last_stages"}))
class GrownRequest(TrainRequest):
    """The request with the new fields."""


def schema_of(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a field, or of a field of an object in it."""
    first, _, inner = name.partition(".")
    field: dict[str, Any] = document["properties"][first]
    return cast(
        "dict[str, Any]", document["$defs"][field["$ref"].rpartition("/")[2]]["properties"][inner] if inner else field
    )


def number_of(field: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a schema that allows a number, or the entries of a list."""
    parts = [field.get("items", field), *field.get("anyOf", [])]
    return next(part for part in parts if part.get("type") in ("integer", "number"))


def row_of(name: str, table: str) -> str:
    found = re.search(rf"^\| `{re.escape(name)}` .*$", table, re.MULTILINE)
    assert found, name
    return found[0]


def graft_help(config: type[Any], *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """Return what `graft train` with this configuration's options prints, and what it would ask for."""
    bodies: list[dict[str, Any]] = []

    def command(**fields: Any) -> None:
        bodies.append(asked(fields))

    app = typer.Typer()
    app.command()(with_training_options(command, config))
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "1000", "NO_COLOR": "1"})
    return done.output, bodies


def library_help(config: type[Any]) -> str:
    parser = argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=2000))
    add_config_options(parser, config)
    return parser.format_help()


@pytest.mark.parametrize("one", PARAMETERS.values(), ids=lambda one: one.name)
def test_all_say_the_same_of_a_field(one: HyperParameter) -> None:
    assert one.meaning
    option = next(option for option in options_of() if option.name == one.name)
    assert f"{option.flag} " in library_help(TrainConfig)
    assert f"{one.meaning}" in library_help(TrainConfig)
    assert one.range in option.help
    if one.name not in OTHERWISE:
        shown_by_graft, _ = graft_help(TrainConfig, "--help")
        assert option.flag.replace("--head-", "--") in shown_by_graft
        assert one.range in shown_by_graft
    if one.name == "last_stages":  # a part of `train` for a caller
        return
    field, row = schema_of(one.name, TrainRequest.model_json_schema()), row_of(one.name, fields_table())
    assert field["description"].startswith(one.meaning)
    assert one.meaning in row
    assert one.details in row
    assert one.range in row
    assert all(word in row for word in one.choices if one.name != "train")
    if one.number is not None:
        allowed = number_of(field)
        assert allowed.get("minimum") == one.at_least
        assert allowed.get("exclusiveMinimum") == one.above
        assert allowed.get("maximum") == one.at_most
    if one.default is not dataclasses.MISSING and one.name != "base_model":
        default = list(one.default) if isinstance(one.default, tuple) else one.default
        assert field["default"] == default


NUMBERS = [one for one in PARAMETERS.values() if one.number in one.types and one.name != "last_stages"]


@pytest.mark.parametrize("one", NUMBERS, ids=lambda one: one.name)
def test_library_and_schema_refuse_the_same_numbers(one: HyperParameter) -> None:
    """At a bound both take it, and just beyond it neither does."""
    step = 1 if one.number is int else 1e-6
    lowest = one.at_least if one.at_least is not None else (one.above or 0) + step
    assert one.at_most is not None
    good, bad = (lowest, one.at_most), (lowest - step, one.at_most + step, float("nan"))
    first, _, inner = one.name.partition(".")
    for value in (*good, *bad):
        request = {"dataset": "pets", first: {inner: value} if inner else value}
        config = {"backbone": "resnet18", "train": "all", "epochs": 10_000, **request}
        del config["dataset"]
        if value in good:
            TrainRequest.model_validate(request)
            if one.name != "unfreeze_every":  # which depends on the epochs as well
                TrainConfig.from_dict(config).resolve()
            continue
        with pytest.raises(ValidationError):
            TrainRequest.model_validate(request)
        with pytest.raises(InvalidConfig) as caught:
            TrainConfig.from_dict(config).resolve()
        assert caught.value.field == one.name
        assert str(caught.value).startswith(f"{one.name}: {value!r} is not allowed; use a")


def test_conditions_name_fields_and_their_values() -> None:
    conditions = [
        (field, value) for one in PARAMETERS.values() for field, values in one.only_with.items() for value in values
    ]
    assert conditions
    assert [(field, value) for field, value in conditions if value not in PARAMETERS[field].choices] == []


def test_defaults_lie_within_their_bounds() -> None:
    config = TrainConfig("resnet18").resolve()
    for train in ("head", "all"):
        for optimizer in ("sgd", "adam", "adamw"):
            resolved = dataclasses.replace(TrainConfig("resnet18"), train=train, optimizer=optimizer).resolve()
            assert resolved.resolve() == resolved
    for one in PARAMETERS.values():
        if one.if_left_out is not None:
            assert value_of(config, one.name) == one.if_left_out.value(TrainConfig("resnet18"))


class TestANewField:
    """`Grown` adds three; everything that is made from a configuration has them."""

    def test_is_checked(self) -> None:
        assert Grown("resnet18", sharpness=2, rounds="most").resolve().sharpness == 2
        for values, says in (
            ({"sharpness": 2.5}, "sharpness: 2.5 is not allowed; use a number above 0 up to 2."),
            ({"sharpness": 0}, "sharpness: 0 is not allowed; use a number above 0 up to 2."),
            ({"rounds": "few"}, "rounds: 'few' is not allowed; use a whole number from 1 to 9, or \"most\"."),
            ({"order": "left"}, "order: 'left' is not known; use one of up, down."),
        ):
            with pytest.raises(InvalidConfig, match=f"^{re.escape(says)}$"):
                Grown("resnet18", **values).resolve()  # type: ignore[arg-type]

    def test_is_stored_and_read(self) -> None:
        config = Grown("resnet18", order="down").resolve()
        assert list(config.to_dict())[-3:] == ["sharpness", "rounds", "order"]
        assert Grown.from_dict(config.to_dict()) == config

    def test_is_in_the_schema(self) -> None:
        properties = GrownRequest.model_json_schema()["properties"]
        assert list(properties)[-3:] == ["sharpness", "rounds", "order"]
        assert properties["sharpness"] == {
            "type": "number",
            "title": "Sharpness",
            "description": "How sharp edges become.",
            "default": 0.5,
            "exclusiveMinimum": 0,
            "maximum": 2,
        }
        assert properties["order"]["enum"] == ["up", "down"]
        assert GrownRequest.model_validate({"dataset": "pets", "rounds": "most"}).model_dump()["rounds"] == "most"
        with pytest.raises(ValidationError, match='use a whole number from 1 to 9, or "most"'):
            GrownRequest.model_validate({"dataset": "pets", "rounds": 10})

    def test_is_an_option_of_both_commands(self) -> None:
        shown_by_graft, _ = graft_help(Grown, "--help")
        for text in (library_help(Grown), shown_by_graft):
            for said in (
                "--sharpness",
                "How sharp edges become. (above 0, up to 2; default: 0.5)",
                "N|most",
                "up|down",
            ):
                assert said in text
        parser = argparse.ArgumentParser()
        add_config_options(parser, Grown)
        assert vars(parser.parse_args(["--rounds", "7"])) == {"rounds": 7}
        words = ("--rounds", "7", "--sharpness", "1.5", "--dropout", "0.5", "--hidden", "64", "--hidden", "32")
        _, bodies = graft_help(Grown, *words)
        assert bodies == [{"rounds": 7, "sharpness": 1.5, "head": {"dropout": 0.5, "hidden": [64, 32]}}]

    def test_is_in_the_guide(self) -> None:
        table = fields_table(GrownRequest, Grown)
        assert row_of("sharpness", table) == (
            "| `sharpness` | number above 0, up to 2; log scale | `0.5` | How sharp edges become. Try 1. |"
        )
        assert row_of("rounds", table) == "| `rounds` | whole number 1 to 9 or `most` |  | How often. |"
        assert (
            row_of("order", table) == "| `order` | `up`, `down` | `up` | In which order. Only where `train` is `all`. |"
        )


def test_the_command_has_no_option_of_its_own_for_a_hyper_parameter() -> None:
    from app.cli.commands.jobs import train

    names = set(inspect.signature(train).parameters)
    assert {name.replace(".", "__") for name in PARAMETERS if name not in OTHERWISE} <= names


@pytest.mark.parametrize(
    ("value", "says"), [(10.0, "10"), (2e-3, "0.002"), (True, "yes"), (False, "no"), (2**32 - 1, "4294967295")]
)
def test_values_are_shown_as_a_person_writes_them(value: object, says: str) -> None:
    assert shown(value) == says
