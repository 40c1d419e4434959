"""These engines run an ONNX file: ONNX Runtime, and OpenVINO in float32, bfloat16 and calibrated INT8."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.vision.engines.engine import LARGE
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.networks.outputs import Outputs

_INPUT = "images"


class _FromPixels(nn.Module):
    """Computes a network's outputs, in their order, from uint8 [N, H, W, 3].

    Normalisation is part of the file: no caller can do it differently.
    """

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self._preprocessing = preprocessing

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.outputs(self._preprocessing.normalize(images)).values())


def export_onnx(network: Network, preprocessing: Preprocessing, path: Path) -> None:
    """Write the model with its normalisation; takes any number of images. Seconds to half a minute."""
    example = torch.zeros((2, *preprocessing.input_shape), dtype=torch.uint8)
    # A copy: while it is traced, its weights are taken out of it, and the network itself goes on answering callers.
    module = _FromPixels(copy.deepcopy(network), preprocessing).eval()
    dynamic = ({0: torch.export.Dim("n", min=1, max=4096)},)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[_INPUT],
            verbose=False,
            output_names=list(network.output_names),
        )
    assert program is not None
    program.save(path, external_data=False)


def quantize_onnx(exported: Path, path: Path, calibration: NDArray[np.uint8]) -> None:
    """Write `exported` in INT8 (QDQ, weights a channel), its ranges taken from `calibration` [N, S, S, 3].

    The head stays in float32: it is next to nothing of the work, and what is rounded there shows in the scores at once.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Any] = iter(np.split(calibration, range(8, len(calibration), 8)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {_INPUT: np.ascontiguousarray(batch)}

    prepared = path.with_suffix(".prepared")
    level = logging.getLogger().level
    try:
        logging.getLogger().setLevel(logging.ERROR)  # it warns of its own defaults
        quant_pre_process(str(exported), str(prepared))
        quantize_static(
            str(prepared),
            str(path),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=sorted({*QLinearOpsRegistry, *QDQRegistry} - {"Gemm", "MatMul"}),
        )
    finally:
        logging.getLogger().setLevel(level)
        prepared.unlink(missing_ok=True)


class OnnxRuntime:
    """Computes with ONNX Runtime on the CPU, in float32."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads would take the cores from the images that are being decoded.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_outputs()]
        self.nbytes = path.stat().st_size
        self.batch = LARGE

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        return dict(zip(self._names, self._session.run(None, {_INPUT: np.ascontiguousarray(batch)}), strict=True))


class OpenVino:
    """Computes with OpenVINO on the CPU.

    `precision` is that of its floating-point layers; an INT8 file keeps its own.
    """

    def __init__(self, name: str, path: Path, threads: int, *, precision: str = "f32") -> None:
        # Its telemetry is never loaded, and OpenVINO then does without: a service on one's own machine tells nobody.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        self.name = name
        # Left out, the precision is bfloat16 on processors that have it, without a word.
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._model = openvino.Core().compile_model(path, "CPU", options)
        self._names = [one.get_any_name() for one in self._model.outputs]
        self._request = self._model.create_infer_request()
        self.nbytes = path.stat().st_size
        self.batch = LARGE

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        found = self._request.infer({0: np.ascontiguousarray(batch)})
        # Copies: the arrays that come back are the engine's own memory, which the next call overwrites.
        return {name: np.array(found[number]) for number, name in enumerate(self._names)}
