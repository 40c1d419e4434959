"""Document jobs kind by kind: `spec` and `result` have the schemas of the job's kind."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, GetJsonSchemaHandler, TypeAdapter, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.jobs import schemas
from app.jobs.types import KNOWN, JobType


class JobOut(schemas.JobOut):
    """A job. At run time spec and result are what the row holds, whichever code wrote it: nothing is left out, and no
    row makes a list fail. The document has a schema for each kind."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(_any_of([_documented(kind) for kind in KNOWN], "kind")).core_schema)


class MetricsOut(schemas.Metrics):
    """A job's report of one epoch. The document has the schema of each kind that has epochs."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reported = [kind.metrics for kind in KNOWN if kind.metrics is not schemas.Metrics]
        return handler(TypeAdapter(_any_of(reported)).core_schema)


class KnownKind:
    """Marks a parameter that names a kind of job: checked against those that there are, and documented by them."""

    @classmethod
    def check(cls, name: str) -> str:
        if KNOWN.find(name) is None:
            raise ValueError(f"{name!r} is no kind of job; use one of {', '.join(sorted(KNOWN.names()))}")
        return name

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": KNOWN.names()}


def _documented(kind: JobType) -> type[BaseModel]:
    said = schemas.JobOut.model_fields["result"].description
    told = schemas.JobOut.model_fields["spec"].description
    fields: dict[str, Any] = {
        "kind": (Literal[kind.name], ...),
        "spec": (kind.spec, Field(description=told)),
        "result": (kind.result | None, Field(description=said)),
    }
    return create_model(f"{kind.name.title()}Job", __base__=schemas.JobOut, **fields)


def _any_of(models: Sequence[type[BaseModel]], discriminator: str | None = None) -> Any:
    union: Any = reduce(or_, models)
    return union if discriminator is None or len(models) == 1 else Annotated[union, Discriminator(discriminator)]
