"""torchvision's networks, imported without torch's compiler.

One layer of torchvision that no classifier has (RoI align) asks `torch._dynamo` a question at import, and every step of
an optimiser tells it that it is no part of a graph. Either imports the compiler, which takes longer than all of torch
and torchvision besides. A stand-in answers those few, and makes way for the compiler as soon as anything else is asked
of it.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_COMPILER, _UTILS = "torch._dynamo", "torch._dynamo.utils"


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        # Whoever walks through all modules, or imports a name, looks at these and wants no compiler.
        if name.startswith("__") and (name, self.__name__) != ("__path__", _COMPILER):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(module: str) -> ModuleType:
    """Return the compiler's module, from now on in its own place."""
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            sys.modules.pop(name, None)  # another thread may have been first
    return importlib.import_module(module)


def _is_compile_supported(device_type: str) -> Any:
    return _real(_UTILS).is_compile_supported(device_type)


def _disable(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    return function  # the optimiser's own methods, which nobody compiles


def _graph_break(*_: Any, **__: Any) -> None:
    """There is no graph where no compiler is."""


if _COMPILER not in sys.modules:
    package, utils = _StandIn(_COMPILER), _StandIn(_UTILS)
    package.disable, package.graph_break = _disable, _graph_break  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {_COMPILER: package, _UTILS: utils}

from torchvision.models import get_model  # noqa: E402

__all__ = ["get_model"]
