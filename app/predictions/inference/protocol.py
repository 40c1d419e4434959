"""Describe models, read requests and write responses of the Open Inference Protocol v2."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from app.datasets.intake.intake import IntakeLimits, check_size, read_image
from app.predictions.inference.tensors import InferOutput, InferRequest, highest, read_tensor, refuse, write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.vision.tasks.classify.classifier import Classifier

Prepare = Callable[["Classifier"], "NDArray[np.uint8]"]  # an image, ready for the network; runs in a decoding thread


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


def metadata(name: str, versions: list[str], side: int, classes: int) -> ModelMetadata:
    """Return the description of a model whose network has an input of `side` pixels. -1 means any number."""
    return ModelMetadata(
        name=name,
        versions=versions,
        inputs=[
            TensorMetadata(name="encoded", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="pixels", datatype="UINT8", shape=[-1, -1, -1, 3]),
            TensorMetadata(name="normalized", datatype="FP32", shape=[-1, 3, side, side]),
        ],
        outputs=[
            TensorMetadata(name="probabilities", datatype="FP32", shape=[-1, classes]),
            TensorMetadata(name="labels", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="decisions", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="ood_score", datatype="FP32", shape=[-1]),
        ],
    )


def read_request(body: bytes, header_length: int | None) -> tuple[InferRequest, memoryview]:
    """Return the request and the bytes after the JSON.

    `header_length` is `Inference-Header-Content-Length`, or None if the whole body is JSON.
    """
    if header_length is not None and header_length > len(body):
        raise refuse("Inference-Header-Content-Length", f"{header_length} is more than the body's {len(body)} bytes")
    json_size = len(body) if header_length is None else header_length
    return InferRequest.model_validate_json(body[:json_size]), memoryview(body)[json_size:]


def read_images(request: InferRequest, binary: memoryview, side: int, limits: IntakeLimits, most: int) -> list[Prepare]:
    """Return a function that prepares the image, for each image in order. Raises `Invalid` for an unknown input."""
    if len(request.inputs) > 1:
        raise refuse("inputs", f"there are {len(request.inputs)}; send exactly one of encoded, pixels and normalized")
    tensor = request.inputs[0]
    size = tensor.parameters.binary_data_size
    if len(binary) != (size or 0):
        raise refuse("binary_data_size", f"it is {size or 0}, but {len(binary)} bytes follow the JSON")
    expected = next((one for one in metadata("", [], side, 0).inputs if one.name == tensor.name), None)
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


def _from_encoded(data: bytes, limits: IntakeLimits, classifier: "Classifier") -> "NDArray[np.uint8]":
    return read_image(data, limits, classifier.prepare)


def _from_pixels(pixels: "NDArray[np.uint8]", limits: IntakeLimits, classifier: "Classifier") -> "NDArray[np.uint8]":
    from PIL import Image

    check_size((pixels.shape[1], pixels.shape[0]), limits)
    return classifier.prepare(Image.fromarray(pixels))


def _from_normalized(tensor: "NDArray[np.float32]", _: IntakeLimits, classifier: "Classifier") -> "NDArray[np.uint8]":
    from app.vision.errors import InvalidData

    try:
        return classifier.preprocessing.denormalize(tensor)
    except InvalidData as error:
        raise refuse("normalized", str(error)) from None


_READ: "dict[str, Callable[[Any, IntakeLimits, Classifier], NDArray[np.uint8]]]" = {
    "encoded": _from_encoded,
    "pixels": _from_pixels,
    "normalized": _from_normalized,
}


def check_outputs(request: InferRequest) -> None:
    """Raise `Invalid` for an output that does not exist, before anything is computed."""
    for output in request.outputs:
        if output.name not in ("probabilities", "labels", "decisions", "ood_score"):
            there = "there are probabilities, labels, decisions and ood_score"
            raise refuse(output.name, f"there is no such output; {there}", "unknown_output")
        if output.name != "probabilities" and output.parameters.classification is not None:
            raise refuse("classification", f"{output.name} has no classes to name; ask it of probabilities")


def write_answer(
    request: InferRequest,
    about: dict[str, Any],
    answers: "Sequence[NDArray[np.float32]]",
    classes: Sequence[str],
    thresholds: Sequence[float | None] | None,
) -> tuple[dict[str, Any], bytes]:
    """The answer's JSON, with `about` in it, and the binary data behind it, from each image's `Classifier.answer`.

    `decisions` are empty texts where a model has none. Raises `Invalid` for the `ood_score` of a model without.
    """
    import numpy as np

    from app.vision.tasks.classify.selective_prediction import judge

    rows = np.stack(answers)[:, : len(classes)]
    wanted = request.outputs or [InferOutput(name="probabilities"), InferOutput(name="labels")]
    outputs, behind = [], []
    for name, parameters in ((one.name, one.parameters) for one in wanted):
        output: dict[str, Any] = {"name": name}
        texts: list[str] | None = None
        numbers = rows
        if name == "labels":
            texts, shape = [classes[index] for index in rows.argmax(axis=1)], [len(rows)]
        elif name == "decisions":
            texts, shape = [judge(row, len(classes), thresholds)[0] or "" for row in answers], [len(rows)]
        elif parameters.classification is not None:
            named = highest(rows, parameters.classification, classes)
            texts, shape = [text for row in named for text in row], [len(rows), len(named[0])]
        elif name == "ood_score":
            if len(answers[0]) == len(classes):
                raise refuse(name, "the model does not know images that are unlike those it was trained on")
            numbers = np.stack(answers)[:, len(classes)]
            shape = list(numbers.shape)
        else:
            shape = list(rows.shape)
        output |= {"datatype": "FP32" if texts is None else "BYTES", "shape": shape}
        binary = parameters.binary_data
        if request.parameters.binary_data_output if binary is None else binary:
            data = numbers.astype("<f4").tobytes() if texts is None else write_bytes(texts)
            output["parameters"] = {"binary_data_size": len(data)}
            behind.append(data)
        else:
            output["data"] = numbers.ravel().tolist() if texts is None else texts
        outputs.append(output)
    answered = about | ({} if request.id is None else {"id": request.id})
    return answered | {"outputs": outputs}, b"".join(behind)
