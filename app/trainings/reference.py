"""Tables of a training's fields for the guide, made from the schema: `python -m app.trainings.reference FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from app.jobs.scheduling import Scheduled
from app.trainings.hyper_parameters import left_out
from app.trainings.schemas import TrainRequest
from app.vision.settings.config import TrainConfig
from app.vision.settings.hyper_parameter import HyperParameter, hyper_parameters, shown
from app.vision.settings.presets import TRANSFORMS

FIELDS = ("field", "values", "if left out", "meaning")
PARAMETERS = ("transform", "parameter", "values", "if left out")

_BEGIN, _END = "<!-- {name}: made by `make docs` -->\n", "<!-- end of {name} -->"

_Schema = Mapping[str, Any]


def main(file: str) -> None:
    """Write the tables into the file."""
    path = Path(file)
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """Return the guide's text with its marked tables made anew; raise ValueError where one is not marked."""
    for name, table in (("training fields", fields_table()), ("transforms", transforms_table())):
        begin, end = _BEGIN.format(name=name), _END.format(name=name)
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the place for the table of {name} is not marked once by {begin.strip()} and {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}"
    return text


def fields_table(request: type[BaseModel] = TrainRequest, config: type[Any] = TrainConfig) -> str:
    """Return the table of all that may be asked of a training; when it runs comes last."""
    schema, parameters = request.model_json_schema(), hyper_parameters(config)
    names = sorted(request.model_fields, key=lambda name: name in Scheduled.model_fields)
    rows: list[tuple[str, ...]] = []
    for name in names:
        for path, field in _with_inner(name, schema["properties"][name], schema["$defs"]):
            required = path in schema["required"]
            rows.append(_row(path, field, schema["$defs"], parameters.get(path), required=required))
    return _table(FIELDS, rows)


def transforms_table() -> str:
    """Return the table of the transforms that an augmentation may list, with their parameters."""
    rows = [
        (f"`{transform}`", f"`{name}`", f"{shown(one.low)} to {shown(one.high)}", shown(one.default))
        for transform, parameters in TRANSFORMS.items()
        for name, one in parameters.items()
    ]
    return _table(PARAMETERS, rows)


def _with_inner(name: str, field: _Schema, defs: _Schema) -> Iterator[tuple[str, _Schema]]:
    """Yield the field, or in place of an object the fields in it, as "head.hidden"."""
    if "$ref" not in field:
        yield name, field
        return
    for inner, schema in _object(field, defs)["properties"].items():
        yield f"{name}.{inner}", schema


def _row(
    name: str, field: _Schema, defs: _Schema, parameter: HyperParameter | None, *, required: bool
) -> tuple[str, ...]:
    values, default, meaning = _values(field, defs), field.get("default"), field["description"]
    left_out_as = "required" if required else "" if default is None else f"`{_json(default)}`"
    if parameter is not None:
        values += "; log scale" if parameter.log else ""
        if parameter.if_left_out is not None:
            left_out_as = parameter.if_left_out.said
            meaning = meaning.replace(left_out(parameter), "").replace("  ", " ").strip()
        meaning = " ".join(part for part in (meaning, parameter.details, _condition(parameter)) if part)
    return f"`{name}`", values, left_out_as, meaning


def _json(value: object) -> str:
    """Return a default as JSON, but 1 for 1.0, and words without their quotes."""
    if isinstance(value, str):
        return value
    return shown(value) if isinstance(value, float) else json.dumps(value)


def _condition(parameter: HyperParameter) -> str:
    conditions = (
        f"`{field}` is {' or '.join(f'`{value}`' for value in values)}" for field, values in parameter.only_with.items()
    )
    said = " and ".join(conditions)
    return f"Only where {said}." if said else ""


def _values(field: _Schema, defs: _Schema) -> str:
    """Return in words what the JSON schema allows, null left out."""
    if "anyOf" in field:
        return " or ".join(_values(one, defs) for one in field["anyOf"] if one.get("type") != "null")
    if "$ref" in field:
        inner = ", ".join(f'"{name}": n' for name in _object(field, defs)["properties"])
        return f"`{{{inner}}}`"
    if words := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{word}`" for word in words)
    if field["type"] == "array":
        most = f", at most {field['maxItems']} of them" if "maxItems" in field else ""
        return (
            f"a list of objects, see below{most}"
            if "$ref" in field["items"]
            else (f"a list, each entry a {_values(field['items'], defs)}{most}")
        )
    if field["type"] == "boolean":
        return "`true`, `false`"
    if field["type"] == "string":
        return "a time (RFC 3339)" if field.get("format") == "date-time" else "a text"
    return " ".join(
        part for part in ("whole number" if field["type"] == "integer" else "number", _range(field)) if part
    )


def _range(field: _Schema) -> str:
    above, at_least, at_most = (field.get(bound) for bound in ("exclusiveMinimum", "minimum", "maximum"))
    return HyperParameter("", float, None, above=above, at_least=at_least, at_most=at_most).range


def _object(field: _Schema, defs: _Schema) -> _Schema:
    found: _Schema = defs[field["$ref"].rpartition("/")[2]]
    return found


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = (head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
