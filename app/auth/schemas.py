"""Define how the API describes keys, and how a caller asks for one."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Scope(StrEnum):
    """A right of a key. `admin` may do everything; `write` may also read and predict; `predict` may also read."""

    read = "read"
    predict = "predict"
    write = "write"
    admin = "admin"

    def covers(self, needed: "Scope") -> bool:
        ranks = list(Scope)
        return ranks.index(self) >= ranks.index(needed)


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ci", "scopes": ["write"]}]})

    name: str = Field(
        min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="Who or what will use the key."
    )
    scopes: list[Scope] = Field(
        default=[Scope.write],
        min_length=1,
        max_length=len(Scope),
        fail_fast=True,
        description="The key's rights; see `Scope`.",
    )


class KeyOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    prefix: str = Field(description="The first characters of the secret, to distinguish keys.")
    scopes: list[Scope]
    created_at: datetime
    revoked_at: datetime | None


class CreatedKey(KeyOut):
    secret: str = Field(description="The key itself. It is shown only in this response; the service stores its hash.")
