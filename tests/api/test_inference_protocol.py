"""The Open Inference Protocol v2, asked by Triton's own client over a socket, and by hand where it would not err."""

import base64
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from app.vision.artefacts.model_file import load_model
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES, problem
from tests.support.images import jpeg, photo, png
from tests.support.services import Service, open_service

PICTURES = [photo(0, 50), photo(1, 51), photo(0, 52)]
FILES = [png(picture) for picture in PICTURES]


@dataclass(frozen=True)
class Triton:
    """Triton's client of a running service, what it has to send along, and the service seen by other callers."""

    client: InferenceServerClient
    headers: dict[str, str]
    service: Service
    model: str

    def infer(self, tensor: InferInput, **options: Any) -> Any:
        headers = dict(self.headers)  # the client leaves its own headers in it
        return self.client.infer("pets", [tensor], headers=headers, **options)


@pytest.fixture(scope="module")
def triton(shared: Service, trained: FitResult) -> Iterator[Triton]:
    with (
        open_service(shared.settings, "socket") as service,
        closing(
            InferenceServerClient(f"127.0.0.1:{service.port}", network_timeout=60, connection_timeout=60)
        ) as client,
    ):
        yield Triton(client, service.predict.headers, service, service.model(trained))


def tensor(name: str, values: Any, datatype: str, *, binary: bool = True) -> InferInput:
    values = np.asarray(values)
    found = InferInput(name, list(values.shape), datatype)
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def encoded(files: list[bytes] = FILES) -> InferInput:
    return tensor("encoded", np.array(files, dtype=np.object_), "BYTES")


def by_predict(triton: Triton, files: list[bytes]) -> Any:
    """What the service's own route says: probabilities [N, C]."""
    sent = [("file", (f"{number}.png", data)) for number, data in enumerate(files)]
    path = f"/v1/models/{triton.model}/predict?probabilities=all"
    items = triton.service.predict.post(path, files=sent).json()["items"]
    return np.array([[item["probabilities"][label] for label in CLASSES] for item in items])


def test_a_client_finds_out_what_there_is(triton: Triton) -> None:
    client, headers = triton.client, triton.headers
    assert client.is_server_live()  # without a key
    assert client.is_server_ready()
    assert client.get_server_metadata(headers=headers)["name"] == "graftwork"
    for name in ("pets", triton.model):
        assert client.is_model_ready(name, headers=headers)
        assert client.is_model_ready(name, triton.model, headers=headers)
        found = client.get_model_metadata(name, headers=headers)
        assert found["name"] == name
        assert triton.model in found["versions"]
    assert client.get_model_metadata("pets", triton.model, headers=headers)["versions"] == [triton.model]
    shapes = {one["name"]: (one["datatype"], one["shape"]) for one in found["inputs"] + found["outputs"]}
    assert shapes == {
        "encoded": ("BYTES", [-1]),
        "pixels": ("UINT8", [-1, -1, -1, 3]),
        "normalized": ("FP32", [-1, 3, 32, 32]),
        "probabilities": ("FP32", [-1, 2]),
        "labels": ("BYTES", [-1]),
        "decisions": ("BYTES", [-1]),
        "ood_score": ("FP32", [-1]),
    }
    assert not client.is_model_ready("cats", headers=headers)
    assert not client.is_model_ready("pets")  # no key
    with pytest.raises(InferenceServerException, match="no model 'cats'"):
        client.get_model_metadata("cats", headers=headers)


def test_an_alias_and_a_version_are_what_they_mean(triton: Triton, trained: FitResult) -> None:
    newer = triton.service.model(trained)
    client, headers = triton.client, triton.headers
    assert client.get_model_metadata("pets", headers=headers)["versions"] == [triton.model, newer]
    triton.service.write("PUT", "/v1/models/pets/aliases/old", json={"model": triton.model})
    for name, version, meant in (
        ("pets", "", newer),
        ("pets", triton.model, triton.model),
        ("pets@old", "", triton.model),
    ):
        answer = client.infer(name, [encoded()], model_version=version, headers=dict(headers)).get_response()
        assert answer["model_version"] == meant
        assert answer["model_name"] == name
    with pytest.raises(InferenceServerException, match="no version '7'"):
        client.infer("pets", [encoded()], model_version="7", headers=dict(headers))
    assert triton.service.write("DELETE", f"/v1/models/{newer}").status_code == 204


@pytest.mark.parametrize("binary", [True, False])
def test_images_are_answered_as_predict_calls_answer_them(triton: Triton, trained: FitResult, binary: bool) -> None:
    expected = by_predict(triton, FILES)
    preprocessing = load_model(trained.model_path).preprocessing
    prepared = np.stack([preprocessing.input_of(preprocessing.load(picture)) for picture in PICTURES])
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    normalized = ((prepared / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    ways = [
        tensor("pixels", np.stack([np.asarray(picture) for picture in PICTURES]), "UINT8", binary=binary),
        tensor("normalized", normalized, "FP32", binary=binary),
    ]
    if binary:  # the client puts BYTES into JSON as text, which an image is not
        ways.append(encoded())
    for sent in ways:
        outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "labels")]
        answer = triton.infer(sent, outputs=outputs)
        rows, labels = answer.as_numpy("probabilities"), answer.as_numpy("labels")
        assert rows.dtype == np.float32
        assert rows == pytest.approx(expected, abs=1e-5)
        texts = [one.decode() if binary else one for one in labels]
        assert texts == [CLASSES[index] for index in expected.argmax(axis=1)]
    assert set(expected.argmax(axis=1)) == {0, 1}  # it is no constant that is compared


def test_what_is_asked_for_comes_back(triton: Triton) -> None:
    everything = triton.infer(encoded(), request_id="mine").get_response()
    assert everything["id"] == "mine"
    assert [one["name"] for one in everything["outputs"]] == ["probabilities", "labels"]
    assert all(one["parameters"]["binary_data_size"] > 0 for one in everything["outputs"])
    assert everything["parameters"] == {"engine": "torch"}
    one = triton.infer(encoded(), outputs=[InferRequestedOutput("labels")])
    assert one.as_numpy("probabilities") is None
    top = triton.infer(encoded(FILES[:1]), outputs=[InferRequestedOutput("probabilities", class_count=1)])
    ((text,),) = top.as_numpy("probabilities")
    value, index, label = text.decode().split(":")
    expected = by_predict(triton, FILES[:1])[0]
    assert float(value) == pytest.approx(expected.max(), abs=1e-5)
    assert CLASSES[int(index)] == label == CLASSES[expected.argmax()]


def test_json_holds_files_in_base64(triton: Triton) -> None:
    data = [base64.b64encode(one).decode() for one in FILES]
    body = {"inputs": [{"name": "encoded", "shape": [3], "datatype": "BYTES", "data": data}]}
    response = triton.service.predict.post("/v2/models/pets/infer", json=body)
    assert response.status_code == 200, response.text
    assert "Server-Timing" in response.headers
    rows, labels = response.json()["outputs"]
    assert np.reshape(rows["data"], rows["shape"]) == pytest.approx(by_predict(triton, FILES), abs=1e-5)
    assert labels["data"] == [CLASSES[row.argmax()] for row in np.reshape(rows["data"], rows["shape"])]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"name": "image"}, "image", "encoded, pixels or normalized"),
        ({"datatype": "FP32", "data": [0.5]}, "encoded", "not BYTES"),
        ({"datatype": "FP16"}, "inputs.0.datatype", "BYTES"),
        ({"shape": [2]}, "encoded", "1 elements"),
        ({"shape": [0], "data": []}, "encoded", "at least 1"),
        ({"shape": [65], "data": ["eA=="] * 65}, "encoded", "GRAFT_MAX_PREDICT_FILES"),
        ({"data": ["?"]}, "encoded", "base64"),
        ({"data": None}, "encoded", "binary_data_size"),
        ({"parameters": {"binary_data_size": 7}}, "binary_data_size", "0 bytes"),
        ({"data": ["eA=="]}, "encoded[0]", "The content is text"),
        ({"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 256]}, "pixels", "UINT8"),
        ({"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [[1, 2], 3]}, "pixels", "lengths"),
        ({"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 0.5]}, "pixels", "UINT8"),
        ({"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}, "pixels[0]", "1 × 1 px"),
        ({"name": "normalized", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [9] * 3072}, "normalized", "mean"),
    ],
)
def test_what_is_wrong_is_named(triton: Triton, change: dict[str, Any], field: str, says: str) -> None:
    data = base64.b64encode(FILES[0]).decode()
    body = {"inputs": [{"name": "encoded", "shape": [1], "datatype": "BYTES", "data": [data]} | change]}
    response = triton.service.predict.post("/v2/models/pets/infer", json=body)
    found = response.json()
    assert response.status_code == 422, response.text
    assert any(one["field"].startswith(field) for one in found["errors"]), found
    assert says in found["error"]  # where the protocol has it
    assert found["error"] == found["detail"]


def test_a_request_that_cannot_be_read_is_refused(triton: Triton) -> None:
    post = triton.service.predict.post
    for data, header in ((b"{", None), (b"{}", None), (b"{}", "3"), (b'{"inputs": []}\x00', "14")):
        headers = {} if header is None else {"Inference-Header-Content-Length": header}
        assert post("/v2/models/pets/infer", content=data, headers=headers).status_code in (400, 422)
    with pytest.raises(InferenceServerException, match="no such output"):
        triton.infer(encoded(), outputs=[InferRequestedOutput("logits")])
    cut = encoded([FILES[0]])
    cut._raw_data = cut._raw_data[:-1]
    cut._parameters["binary_data_size"] -= 1
    with pytest.raises(InferenceServerException, match="end within an element"):
        triton.infer(cut)


def test_a_deadline_is_kept(triton: Triton) -> None:
    with pytest.raises(InferenceServerException, match="no answer within"):
        triton.infer(encoded([jpeg(photo(0, 1, (3000, 3000)))] * 8), timeout=1000)
    data = base64.b64encode(jpeg(photo(0, 1, (3000, 3000)))).decode()
    body = {
        "inputs": [{"name": "encoded", "shape": [8], "datatype": "BYTES", "data": [data] * 8}],
        "parameters": {"timeout": 1000},
    }
    late = triton.service.predict.post("/v2/models/pets/infer", json=body)
    assert problem(late, 503, "deadline_exceeded")["error"]
    assert late.headers["retry-after"]
