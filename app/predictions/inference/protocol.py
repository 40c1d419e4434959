"""Describe models, read requests and write responses of the Open Inference Protocol v2."""

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from app.datasets.intake.intake import IntakeLimits, check_size, read_image
from app.predictions.inference.tensors import InferOutput, InferRequest, highest, read_tensor, refuse, write_bytes
from app.vision.images.preprocessing import Preprocessing
from app.vision.tasks import part_of_task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.vision.engines.model import TrainedModel

Prepare = Callable[["TrainedModel"], "NDArray[np.uint8]"]  # an image, ready for the network; runs in a decoding thread


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model's inputs, of which a request holds one, and its outputs."""

    name: str
    versions: list[str]
    platform: str = "graftwork"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def input_tensors(preprocessing: Preprocessing) -> list[TensorMetadata]:
    """Return the tensors in which a model takes images; -1 stands for any number."""
    height, width, channels = preprocessing.input_shape
    return [
        TensorMetadata(name="encoded", datatype="BYTES", shape=[-1]),
        TensorMetadata(name="pixels", datatype="UINT8", shape=[-1, -1, -1, 3]),
        TensorMetadata(name="normalized", datatype="FP32", shape=[-1, channels, height, width]),
    ]


def metadata(name: str, versions: list[str], preprocessing: Preprocessing, classes: int) -> ModelMetadata:
    """Return what a model of so many classes takes and gives."""
    outputs = _answers().output_tensors(classes)
    return ModelMetadata(
        name=name,
        versions=versions,
        inputs=input_tensors(preprocessing),
        outputs=[TensorMetadata(name=one, datatype=kind, shape=shape) for one, (kind, shape) in outputs.items()],
    )


def _answers() -> ModuleType:
    """Return the module of the task's answers, which says what tensors there are without loading torch."""
    return part_of_task("answers")


def read_request(body: bytes, header_length: int | None) -> tuple[InferRequest, memoryview]:
    """Return the request and the bytes after the JSON.

    `header_length` is `Inference-Header-Content-Length`, or None if the whole body is JSON.
    """
    if header_length is not None and header_length > len(body):
        raise refuse("Inference-Header-Content-Length", f"{header_length} is more than the body's {len(body)} bytes")
    json_size = len(body) if header_length is None else header_length
    return InferRequest.model_validate_json(body[:json_size]), memoryview(body)[json_size:]


def read_images(
    request: InferRequest, binary: memoryview, preprocessing: Preprocessing, limits: IntakeLimits, most: int
) -> list[Prepare]:
    """Return a function that prepares the image, for each image in order. Raises `Invalid` for an unknown input."""
    if len(request.inputs) > 1:
        raise refuse("inputs", f"there are {len(request.inputs)}; send exactly one of encoded, pixels and normalized")
    tensor = request.inputs[0]
    size = tensor.parameters.binary_data_size
    if len(binary) != (size or 0):
        raise refuse("binary_data_size", f"it is {size or 0}, but {len(binary)} bytes follow the JSON")
    expected = next((one for one in input_tensors(preprocessing) if one.name == tensor.name), None)
    if expected is None:
        raise refuse(tensor.name, "there is no such input; send encoded, pixels or normalized", "unknown_input")
    fits = len(tensor.shape) == len(expected.shape) and all(
        wanted in (-1, given) for wanted, given in zip(expected.shape, tensor.shape, strict=True)
    )
    if tensor.datatype != expected.datatype or not fits:
        given, wanted = f"{tensor.datatype} {tensor.shape}", f"{expected.datatype} {expected.shape}"
        raise refuse(tensor.name, f"it is {given}, not {wanted}, where -1 means any number")
    if tensor.shape[0] > most:
        raise refuse(tensor.name, f"more than {most} images; send several calls, or raise GRAFT_MAX_PREDICT_FILES")
    elements = read_tensor(tensor, None if size is None else binary)
    return [partial(_READ[tensor.name], one, limits) for one in elements]


def _from_encoded(data: bytes, limits: IntakeLimits, model: "TrainedModel") -> "NDArray[np.uint8]":
    return read_image(data, limits, model.prepare)


def _from_pixels(pixels: "NDArray[np.uint8]", limits: IntakeLimits, model: "TrainedModel") -> "NDArray[np.uint8]":
    from PIL import Image

    check_size((pixels.shape[1], pixels.shape[0]), limits)
    return model.prepare(Image.fromarray(pixels))


def _from_normalized(tensor: "NDArray[np.float32]", _: IntakeLimits, model: "TrainedModel") -> "NDArray[np.uint8]":
    from app.vision.errors import InvalidData

    try:
        return model.preprocessing.denormalize(tensor)
    except InvalidData as error:
        raise refuse("normalized", str(error)) from None


_READ: "dict[str, Callable[[Any, IntakeLimits, TrainedModel], NDArray[np.uint8]]]" = {
    "encoded": _from_encoded,
    "pixels": _from_pixels,
    "normalized": _from_normalized,
}


def check_outputs(request: InferRequest) -> None:
    """Raise `Invalid` for an output that does not exist, before anything is computed."""
    answers = _answers()
    names = list(answers.output_tensors(0))
    for output in request.outputs:
        if output.name not in names:
            there = f"there are {', '.join(names[:-1])} and {names[-1]}"
            raise refuse(output.name, f"there is no such output; {there}", "unknown_output")
        if output.name != answers.RANKED_TENSOR and output.parameters.classification is not None:
            there = answers.RANKED_TENSOR
            raise refuse("classification", f"{output.name} has no classes to name; ask it of {there}")


def write_answer(
    request: InferRequest,
    about: dict[str, Any],
    model: "TrainedModel",
    answers: Sequence[Any],
    thresholds: Sequence[float | None] | None,
) -> tuple[dict[str, Any], bytes]:
    """Return the answer's JSON, with `about` in it, and the binary data behind it, from the answers to the images.

    Raises `Invalid` for a tensor that this model cannot give.
    """
    wanted = request.outputs or [InferOutput(name=name) for name in _answers().USUAL_TENSORS]
    outputs, behind = [], []
    for name, parameters in ((one.name, one.parameters) for one in wanted):
        output: dict[str, Any] = {"name": name}
        try:
            found = model.answers.tensor(name, answers, thresholds)
        except LookupError as error:
            raise refuse(name, str(error)) from None
        texts = found if isinstance(found, list) else None
        shape = [len(answers)] if isinstance(found, list) else list(found.shape)
        if not isinstance(found, list) and parameters.classification is not None:
            named = highest(found, parameters.classification, model.classes)
            texts, shape = [text for row in named for text in row], [len(found), len(named[0])]
        output |= {"datatype": "FP32" if texts is None else "BYTES", "shape": shape}
        binary = parameters.binary_data
        if request.parameters.binary_data_output if binary is None else binary:
            data = write_bytes(texts) if texts is not None else _little_endian(found)
            output["parameters"] = {"binary_data_size": len(data)}
            behind.append(data)
        else:
            output["data"] = texts if texts is not None else _flat(found)
        outputs.append(output)
    answered = about | ({} if request.id is None else {"id": request.id})
    return answered | {"outputs": outputs}, b"".join(behind)


def _little_endian(numbers: Any) -> bytes:
    data: bytes = numbers.astype("<f4").tobytes()
    return data


def _flat(numbers: Any) -> list[float]:
    flat: list[float] = numbers.ravel().tolist()
    return flat
