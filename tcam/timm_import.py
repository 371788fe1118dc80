"""Import timm without PyTorch's compiler.

A detection layer of torchvision and a network of timm import ``torch._dynamo`` at once, though they use it only when
they are called. That is a third of the time that a process needs to start (``tools/bench/start.py``). Here the import
waits for the call.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import patch

import torch

_COMPILER = "torch._dynamo.utils"


class _CompilerLater(ModuleType):
    """Stands for the compiler's module while torchvision is imported; what else is asked of it imports the real one."""

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        return bool(importlib.import_module(_COMPILER).is_compile_supported(device_type))

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # Python looks for such names in every module
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]
        return getattr(importlib.import_module(_COMPILER), name)


@contextmanager
def _compiler_later() -> Iterator[None]:
    later = _CompilerLater(_COMPILER)
    sys.modules.setdefault(_COMPILER, later)
    # PyTorch's own way to exempt a function from compilation and to import the compiler when it is first called.
    disable = getattr(torch, "_disable_dynamo", torch.compiler.disable)
    try:
        with patch.object(torch.compiler, "disable", disable):
            yield
    finally:
        if sys.modules.get(_COMPILER) is later:
            del sys.modules[_COMPILER]


with _compiler_later():
    import timm as timm
