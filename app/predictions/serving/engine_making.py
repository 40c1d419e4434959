"""Make an engine of a loaded model by the engine's name."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from app.vision.engines.names import EngineName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.vision.engines.engine import Engine
    from app.vision.engines.model import TrainedModel

# Gives the file of a name, which the function makes if it is not there.
GetFile: TypeAlias = Callable[[str, Callable[[Path], None]], Path]


def make_engine(
    name: EngineName,
    model: "TrainedModel",
    file: GetFile,
    calibration: "Callable[[], NDArray[np.uint8]] | None" = None,
) -> "Engine":
    """Return the engine; export the network first if its file does not exist. Raises the engine's own errors.

    `calibration` returns prepared images uint8 [N, H, W, 3] of the training split; only `openvino-int8` needs it.
    """
    import torch

    from app.vision.engines.engine import TorchBfloat16, TorchCompiled, TorchHalf

    if name == "torch":
        return model.reference
    if name == "torch-bf16":
        return TorchBfloat16(model.network, model.preprocessing)
    if name == "torch-compile":
        return TorchCompiled(model.network, model.preprocessing)
    if name in ("cuda-fp16", "cuda-bf16"):
        dtype = torch.float16 if name == "cuda-fp16" else torch.bfloat16
        return TorchHalf(name, model.network, model.preprocessing, dtype, torch.device("cuda"))
    from app.vision.engines.onnx_engines import OnnxRuntime, OpenVino, export_onnx, quantize_onnx

    threads = len(os.sched_getaffinity(0))
    exported = file("scored.float32.onnx", partial(export_onnx, model.network, model.preprocessing))
    if name == "onnxruntime":
        return OnnxRuntime(exported, threads)
    if name == "openvino-int8":
        assert calibration is not None, "an INT8 file takes its ranges from images"
        images = calibration
        quantized = file("scored.int8.onnx", lambda path: quantize_onnx(exported, path, images()))
        return OpenVino(name, quantized, threads)
    return OpenVino(name, exported, threads, precision="bf16" if name == "openvino-bf16" else "f32")
