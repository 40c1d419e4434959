"""Lists the engines that there are, without importing any of them."""

import importlib.util
import shutil
from typing import Literal, get_args

EngineName = Literal[
    "torch",
    "torch-bf16",
    "torch-compile",
    "cuda-fp16",
    "cuda-bf16",
    "onnxruntime",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
REFERENCE: EngineName = "torch"

# What an engine needs beside torch; the extra `graftwork[openvino]` brings all of it.
_NEEDS: dict[EngineName, tuple[str, ...]] = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "openvino-bf16": ("onnx", "onnxscript", "openvino"),
    "openvino-int8": ("onnx", "onnxscript", "onnxruntime", "openvino"),
}


def missing_libraries(name: EngineName) -> list[str]:
    """Return what has to be installed before that engine can be used."""
    return [library for library in _NEEDS.get(name, ()) if importlib.util.find_spec(library) is None]


def obstacle(name: EngineName) -> str | None:
    """Return why an engine cannot be used on this machine, and the remedy; None if it can. Imports torch for some."""
    if missing := missing_libraries(name):
        return f"The engine {name} needs {', '.join(missing)} on the server: pip install 'graftwork[openvino]'."
    if name == "torch-compile" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return f"The engine {name} needs a C++ compiler on the server: install g++."
    if name in ("cuda-fp16", "cuda-bf16"):
        import torch

        if not torch.cuda.is_available():
            return f"The engine {name} needs an NVIDIA GPU on the server, and a torch that was built for it."
        if name == "cuda-bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return f"The engine {name} needs a GPU that computes in bfloat16; cuda-fp16 does without."
    return None


def named_engines(names: str) -> list[EngineName]:
    """Return the engines of a list with commas, or all of them for `auto`.

    Raises ValueError for one that there is not.
    """
    wanted = list(ENGINES) if names == "auto" else [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in ENGINES]:
        raise ValueError(f"There is no engine {unknown[0]!r}; there are {', '.join(ENGINES)}.")
    return [name for name in ENGINES if name in wanted]
