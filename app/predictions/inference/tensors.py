"""Read and write tensors of the Open Inference Protocol v2 (KServe), in JSON and in its binary extension."""

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import FieldError, Invalid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_ELEMENTS = 2**26  # of a tensor in JSON; the largest body that is taken holds no more
Datatype = Literal["BYTES", "UINT8", "FP32"]
_DTYPES = {"UINT8": ("u1", "iu"), "FP32": ("<f4", "iuf")}  # as bytes; the kinds of JSON numbers that may stand for it


class InputParameters(BaseModel):
    binary_data_size: int | None = Field(default=None, ge=0, description="Bytes of this tensor after the JSON.")


class InferInput(BaseModel):
    """A tensor: its `shape`, and its elements row by row, in `data` or after the JSON."""

    name: str
    shape: list[int] = Field(max_length=8, fail_fast=True)
    datatype: Datatype
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(
        default=None,
        max_length=MOST_ELEMENTS,
        description="Numbers in nested or flat lists; for BYTES, each element in base64.",
    )


class OutputParameters(BaseModel):
    binary_data: bool | None = None
    classification: int | None = Field(
        default=None,
        ge=1,
        description="Return, in place of the tensor, this many highest values of each row as `value:index:label`.",
    )


class InferOutput(BaseModel):
    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(BaseModel):
    model_config = ConfigDict(extra="allow")

    binary_data_output: bool = Field(default=False, description="Default of the outputs' `binary_data`.")
    timeout: int | None = Field(default=None, ge=1, description="Microseconds until the call is answered with a 503.")


class InferRequest(BaseModel):
    """A request with one input, which holds any number of images. `outputs` selects the outputs to return."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "1",
                    "inputs": [
                        {
                            "name": "encoded",
                            "shape": [1],
                            "datatype": "BYTES",
                            "data": [
                                "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGM8"
                                "oaHBgA0wYRUdtBIA4DgBKJ8lCQoAAAAASUVORK5CYII="
                            ],
                        }
                    ],
                    "outputs": [{"name": "labels"}],
                }
            ]
        }
    )

    id: str | None = Field(default=None, description="An id of the caller's own, which the response repeats.")
    parameters: InferParameters = InferParameters()
    inputs: list[InferInput] = Field(min_length=1, max_length=16, fail_fast=True)
    outputs: list[InferOutput] = Field(default=[], max_length=16, fail_fast=True)


def refuse(field: str, detail: str, code: str = "invalid") -> Invalid:
    return Invalid(f"{field}: {detail}", code=code, errors=[FieldError(field, detail, code)])


def read_tensor(tensor: InferInput, raw: memoryview | None) -> "list[bytes] | NDArray[Any]":
    """Return the elements: a list for BYTES, else an array of the tensor's shape. Raises `Invalid`, naming the input.

    `raw` holds them in the format of the binary extension: little-endian, row by row, and each element of BYTES after
    its length in 4 bytes.
    """
    if (raw is None) == (tensor.data is None):
        raise refuse(tensor.name, "it needs either data or parameters.binary_data_size, and not both")
    if any(side < 1 for side in tensor.shape):
        raise refuse(tensor.name, f"its shape {tensor.shape} holds no elements; every side must be at least 1")
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        found = _decoded(tensor) if raw is None else _split(tensor.name, raw)
        if len(found) != count:
            raise refuse(tensor.name, f"it has {len(found)} elements, but its shape {tensor.shape} needs {count}")
        return found
    numbers = _numbers(tensor) if raw is None else _from_buffer(tensor, raw)
    if numbers.size != count:
        raise refuse(tensor.name, f"it has {numbers.size} elements, but its shape {tensor.shape} needs {count}")
    return numbers.reshape(tensor.shape)


def _from_buffer(tensor: InferInput, raw: memoryview) -> "NDArray[Any]":
    import numpy as np

    dtype = np.dtype(_DTYPES[tensor.datatype][0])
    if len(raw) % dtype.itemsize:
        raise refuse(tensor.name, f"its {len(raw)} bytes are not a whole number of {tensor.datatype} elements")
    return np.frombuffer(raw, dtype)


def _numbers(tensor: InferInput) -> "NDArray[Any]":
    import numpy as np

    dtype, kinds = _DTYPES[tensor.datatype]
    try:
        numbers = np.array(tensor.data)
    except (ValueError, OverflowError):
        raise refuse(tensor.name, "its data must be numbers, in lists of equal lengths") from None
    if numbers.dtype.kind not in kinds or (
        dtype == "u1" and numbers.size and not 0 <= numbers.min() <= numbers.max() < 256
    ):
        raise refuse(tensor.name, f"its data must be numbers that fit {tensor.datatype}")
    return numbers.astype(dtype)


def _decoded(tensor: InferInput) -> list[bytes]:
    try:
        return [base64.b64decode(one, validate=True) for one in tensor.data or []]
    except (binascii.Error, ValueError, TypeError) as error:
        raise refuse(
            tensor.name, f"BYTES in JSON must be base64, and this is not ({error}); encode the file with base64 -w0"
        ) from None


def _split(name: str, raw: memoryview) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at) if at + 4 <= len(raw) else (len(raw),)
        at += 4
        if at + size > len(raw):
            raise refuse(name, "its binary data end within an element; each element needs its length in 4 bytes first")
        found.append(bytes(raw[at : at + size]))
        at += size
    return found


def write_bytes(texts: Sequence[str]) -> bytes:
    """Return the texts as BYTES in the format of the binary extension."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(one)) + one for one in encoded)


def highest(rows: "NDArray[np.float32]", count: int, labels: Sequence[str]) -> list[list[str]]:
    """Return the `count` highest values of each row as `value:index:label` (the classification extension)."""
    return [[f"{row[index]:f}:{index}:{labels[index]}" for index in (-row).argsort()[:count]] for row in rows]
