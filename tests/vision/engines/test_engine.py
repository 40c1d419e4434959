"""Engines answer as the reference does; one that does not is never chosen, however fast it is."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import BUNDLED, load_state_dict
from app.vision.engines.choice import Measured, choose, measure
from app.vision.engines.engine import (
    LARGE,
    Engine,
    TorchBfloat16,
    TorchCompiled,
    TorchEager,
    TorchHalf,
    fold_batch_norms,
)
from app.vision.engines.model import TrainedModel
from app.vision.engines.names import ENGINES, EngineName, named_engines, obstacle
from app.vision.images import preprocessing
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network, build_network, load_trunk
from app.vision.networks.outputs import Outputs
from app.vision.scores.ood import OodScorer, fit_ood
from app.vision.settings.config import HeadConfig
from app.vision.tasks.classify.answers import ClassAnswers
from app.vision.tasks.task import Agreement
from tests.support.images import REPOSITORY, photo

TINY = get_backbone("resnet18-tiny64")
PREPROCESSING = Preprocessing.for_backbone(TINY, 32)


@pytest.fixture(scope="module")
def network() -> Network:
    """The bundled trunk under a head that tells the three kinds of picture apart by their mean features."""
    network = build_network(TINY, 3, HeadConfig())
    load_trunk(network, TINY, load_state_dict(BUNDLED / TINY.weights_file, TINY))
    network.eval()
    pixels, labels = pictures(range(100, 112))
    with torch.inference_mode():
        features = network.trunk(PREPROCESSING.normalize(torch.from_numpy(pixels)))
        network.head.standardise(features)
        scaled = (features - network.head.mean) / network.head.scale
        means = torch.stack([scaled[torch.from_numpy(labels == label)].mean(dim=0) for label in range(3)])
        last = network.head.layers[-1]
        last.weight.copy_(means / 10)
        last.bias.copy_(-(means**2).sum(dim=1) / 20)
    return network


def pictures(seeds: range) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    labels = np.array([number % 3 for number in seeds])
    prepared = [
        PREPROCESSING.input_of(PREPROCESSING.load(photo(label, seed)))
        for label, seed in zip(labels, seeds, strict=True)
    ]
    return np.stack(prepared), labels


@pytest.fixture(scope="module")
def reference(network: Network) -> TorchEager:
    return TorchEager(network, PREPROCESSING)


@pytest.fixture(scope="module")
def onnx_file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    from app.vision.engines.onnx_engines import export_onnx

    path = tmp_path_factory.mktemp("onnx") / "float32.onnx"
    export_onnx(network, PREPROCESSING, path)
    return path


def agreement(engine: Engine, reference: Engine) -> tuple[float, float]:
    """Share of equal labels, and the largest difference of a score in units of the scores' spread."""
    pixels, _ = pictures(range(60))
    (expected, known), (answered, features) = reference.outputs(pixels).values(), engine.outputs(pixels).values()
    assert answered.dtype == features.dtype == np.float32
    assert features.shape == (60, 512)
    # The features too are the engine's own, and the reference's but for the precision.
    assert 0 <= np.abs(features - known).mean() / known.std() <= 0.1
    assert answered.shape == (60, 3)
    assert set(expected.argmax(axis=1)) == {0, 1, 2}  # it is no constant that is compared
    # Alone or among others: the same answer.
    assert np.abs(engine.outputs(pixels[7:8])["logits"] - answered[7:8]).max() <= 0.05 * expected.std()
    same = float((answered.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return same, float(np.abs(answered - expected).max() / expected.std())


def test_folded_batch_norms_change_no_score(network: Network, reference: TorchEager) -> None:
    import copy

    folded = copy.deepcopy(network)
    fold_batch_norms(folded.trunk)
    assert not [one for one in folded.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    same, apart = agreement(TorchEager(folded, PREPROCESSING), reference)
    assert same == 1
    assert apart <= 1e-4


def test_bfloat16_labels_as_the_reference_does(network: Network, reference: TorchEager) -> None:
    engine = TorchBfloat16(network, PREPROCESSING)
    same, apart = agreement(engine, reference)
    assert same >= 0.98
    assert 1e-4 < apart < 0.2  # it is another precision, and not another network
    assert engine.nbytes < 0.6 * reference.nbytes
    assert next(reference.network.trunk.parameters()).dtype == torch.float32  # the reference is as it was


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "openvino-bf16"])
def test_engines_of_an_onnx_file_label_as_the_reference_does(name: str, onnx_file: Path, reference: TorchEager) -> None:
    from app.vision.engines.onnx_engines import OnnxRuntime, OpenVino

    if name == "onnxruntime":
        engine: Engine = OnnxRuntime(onnx_file, 2)
    else:
        engine = OpenVino(name, onnx_file, 2, precision="bf16" if name == "openvino-bf16" else "f32")
    same, apart = agreement(engine, reference)
    assert same >= (0.98 if name == "openvino-bf16" else 1)
    assert apart <= (0.2 if name == "openvino-bf16" else 1e-3)


def test_a_calibrated_int8_file_labels_nearly_as_the_reference_does(
    onnx_file: Path, reference: TorchEager, tmp_path: Path
) -> None:
    from app.vision.engines.onnx_engines import OpenVino, quantize_onnx

    path = tmp_path / "int8.onnx"
    quantize_onnx(onnx_file, path, pictures(range(200, 232))[0])
    assert path.stat().st_size < 0.4 * onnx_file.stat().st_size
    assert list(tmp_path.iterdir()) == [path]
    same, apart = agreement(OpenVino("openvino-int8", path, 2), reference)
    assert same >= 0.9
    assert apart > 1e-3  # it is INT8 that answered
    nodes = onnx.load(path).graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    into = {
        kind: {made_by.get(name) for node in nodes if node.op_type == kind for name in node.input}
        for kind in ("Conv", "Gemm")
    }
    assert into["Conv"] == {"DequantizeLinear"}
    assert "DequantizeLinear" not in into["Gemm"], "the head is not rounded"


COLOURS = ("r", "g", "b")


def against(
    reference: Outputs, labels: NDArray[np.int64], ood: OodScorer | None = None
) -> Callable[[Outputs], Agreement]:
    """Compare an engine with the reference as a classifier does."""
    answers = ClassAnswers(COLOURS, ood=ood)
    return lambda outputs: answers.agreement(outputs, reference, labels)


class Colours:
    """An engine that costs nothing: an image's scores and features are its mean red, green and blue."""

    name = "colours"
    nbytes = 0
    batch = LARGE

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        colours = batch.mean(axis=(1, 2), dtype=np.float32)
        return {"logits": colours, "features": colours}


class Wrong:
    """An engine that gives the reference's scores, with the labels of the first `wrong` images moved on by one.

    Its features are off by `shift`."""

    name = "wrong"
    nbytes = 0
    batch = LARGE

    def __init__(self, reference: Engine, wrong: int, value: float = 0.0, shift: float = 0.0) -> None:
        self._reference = reference
        self._wrong = wrong
        self._value = value
        self._shift = shift
        self._seen = 0

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        found = self._reference.outputs(batch)
        scores = found["logits"] + np.float32(self._value)
        moved = max(0, min(self._wrong - self._seen, len(batch)))
        self._seen += len(batch)
        scores[:moved] = np.roll(scores[:moved], 1, axis=1)
        return {"logits": scores, "features": found["features"] + np.float32(self._shift)}


class Slowing(Colours):
    """Takes a hundred times as long for ten times as many images, by a clock of its own that nothing else moves."""

    def __init__(self) -> None:
        self.given: set[int] = set()
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        self.given.add(len(batch))
        self.seconds += len(batch) ** 2 * 1e-4
        return super().outputs(batch)


def test_an_engine_is_given_as_many_images_as_it_is_the_fastest_with() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    engine = Slowing()
    found = measure(
        engine, pixels, against(Colours().outputs(pixels), np.zeros(40, np.int64)), clock=engine.perf_counter
    )
    assert found.batch == engine.batch == 8
    assert found.large_ms == pytest.approx(25.6)  # four times 6.4 ms
    classifier = TrainedModel(
        build_network(get_backbone("resnet18-tiny64"), 3, HeadConfig()), Preprocessing(4, 4), ClassAnswers(COLOURS)
    )
    engine.given.clear()
    classifier.engine = engine
    assert len(classifier.answer(pixels[:20])) == 20
    assert engine.given == {8, 4}


def test_an_engine_that_disagrees_is_not_usable() -> None:
    reference = Colours()
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, 200)
    expected = reference.outputs(pixels)
    truth = expected["logits"].argmax(axis=1)

    one = measure(Wrong(reference, 1), pixels, against(expected, truth))
    assert (one.usable, one.images, one.agreement, one.accuracy_drop) == (True, 200, 0.995, pytest.approx(0.005))
    two = measure(Wrong(reference, 2), pixels, against(expected, labels))
    assert not two.usable
    assert two.agreement == 0.99
    assert "99.00%" in str(two.detail)
    broken = measure(Wrong(reference, 0, float("nan")), pixels, against(expected, labels))
    assert not broken.usable
    assert "finite" in str(broken.detail)
    itself = measure(reference, pixels, against(expected, labels))
    assert (itself.usable, itself.agreement, itself.accuracy_drop, itself.unknown_shift) == (True, 1, 0, None)
    assert itself.single_ms is not None
    assert itself.single_ms > 0
    assert itself.large_ms is not None
    assert itself.large_ms > 0


def test_an_engine_that_finds_other_images_unknown_is_not_usable() -> None:
    reference = Colours()
    pixels = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    expected = reference.outputs(pixels)
    truth = expected["logits"].argmax(axis=1)
    features = torch.from_numpy(expected["features"])
    ood = fit_ood(features, truth)
    ood = ood.limited(ood.distances(features).numpy())
    itself = measure(reference, pixels, against(expected, truth, ood))
    assert (itself.usable, itself.unknown_shift) == (True, 0)
    away = measure(Wrong(reference, 0, shift=50.0), pixels, against(expected, truth, ood))
    assert away.agreement == 1
    assert not away.usable
    assert away.unknown_shift is not None
    assert away.unknown_shift > 0.9
    assert "more of the images unknown" in str(away.detail)


def test_the_fastest_usable_engine_is_chosen() -> None:
    slow = Measured("torch", True, 100, 1.0, 0.0, 10, 100)
    fast = Measured("torch-bf16", True, 100, 1.0, 0.0, 5, 40)
    wrong = Measured("openvino-int8", False, 100, 0.9, 0.1, 1, 10)
    failed = Measured("onnxruntime", False)
    assert choose([slow, fast, wrong, failed]) == "torch-bf16"
    assert choose([slow, wrong]) == "torch"
    assert choose([]) == "torch"


def test_a_network_answers_while_it_is_exported(network: Network, reference: TorchEager, tmp_path: Path) -> None:
    from app.vision.engines.onnx_engines import export_onnx

    images = pictures(range(1))[0]
    expected = reference.outputs(images)["logits"]
    exported = threading.Event()

    def answers() -> int:
        count = 0
        while not exported.is_set():
            np.testing.assert_allclose(reference.outputs(images)["logits"], expected, atol=1e-5)
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answers)
        try:
            export_onnx(network, PREPROCESSING, tmp_path / "exported.onnx")
        finally:
            exported.set()
        assert answering.result() > 10


def test_what_is_used_first_in_an_export_leaves_nothing_behind(
    network: Network, reference: TorchEager, tmp_path: Path
) -> None:
    """As where a service starts with a model whose engine is known and whose file is not there any more."""
    from app.vision.engines.onnx_engines import OnnxRuntime, export_onnx

    images = pictures(range(1))[0]
    expected = reference.outputs(images)["logits"]
    preprocessing._kept.cache_clear()
    export_onnx(network, PREPROCESSING, tmp_path / "exported.onnx")
    np.testing.assert_array_equal(reference.outputs(images)["logits"], expected)
    exported = OnnxRuntime(tmp_path / "exported.onnx", threads=1)
    np.testing.assert_allclose(exported.outputs(images)["logits"], expected, atol=1e-4)


def test_engines_are_named_in_a_list() -> None:
    assert named_engines("auto") == list(ENGINES)
    assert named_engines("openvino-int8, torch-bf16") == ["torch-bf16", "openvino-int8"]
    with pytest.raises(ValueError, match="no engine 'cuda'"):
        named_engines("torch,cuda")


def test_a_compiled_network_labels_as_the_reference_does(network: Network, reference: TorchEager) -> None:
    if (reason := obstacle("torch-compile")) is not None:
        pytest.skip(reason)
    engine = TorchCompiled(network, PREPROCESSING)
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    same, apart = agreement(engine, reference)
    assert same == 1
    assert 0 < apart <= 1e-3  # it was not the reference that answered
    engine.outputs(pictures(range(5))[0])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled  # no caller waits for a compiler


def test_without_a_compiler_a_compiled_engine_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "C++ compiler" in str(obstacle("torch-compile"))
    assert obstacle("torch") is None


def test_batches_of_fixed_sizes_are_filled_up(network: Network, reference: TorchEager) -> None:
    """What an accelerator computes, on the CPU: the same numbers, in none but the sizes that were prepared."""
    engine = TorchHalf("cuda-bf16", network, PREPROCESSING, torch.bfloat16, torch.device("cpu"))
    seen: list[int] = []
    engine.network.trunk.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    same, _ = agreement(engine, reference)
    assert same >= 0.98
    assert [len(one) for one in engine.outputs(pictures(range(5))[0]).values()] == [5, 5]
    assert seen == [32, 32, 1, 8]  # 60 images, one, five


@pytest.mark.parametrize("name", ["cuda-fp16", "cuda-bf16"])
def test_a_gpu_labels_as_the_reference_does(name: EngineName, network: Network, reference: TorchEager) -> None:
    if (reason := obstacle(name)) is not None:
        pytest.skip(reason)
    dtype = torch.float16 if name == "cuda-fp16" else torch.bfloat16
    same, apart = agreement(TorchHalf(name, network, PREPROCESSING, dtype, torch.device("cuda")), reference)
    assert same >= 0.98
    assert 1e-5 < apart < 0.2


def test_openvino_tells_nobody(onnx_file: Path) -> None:
    """Its telemetry is not even loaded, and no connection is opened or name looked up."""
    pytest.importorskip("openvino")
    program = f"""
import sys
calls = []
outward = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, _: calls.append(event) if event in outward else None)
import numpy
from pathlib import Path
from app.vision.engines.onnx_engines import OpenVino
engine = OpenVino("openvino", Path({str(onnx_file)!r}), 1)
assert engine.outputs(numpy.zeros((1, 32, 32, 3), numpy.uint8))["logits"].shape == (1, 3)
from openvino.tools.ovc import telemetry_utils
print(calls, telemetry_utils.tm.__name__, [name for name in sys.modules if name.startswith("openvino_telemetry.")])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "openvino.tools.ovc.telemetry_stub", "[]"]
