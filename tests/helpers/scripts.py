"""Scripts of ``tools/`` as modules; a helper of these tests."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.helpers.documents import REPO


def load_script(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """Return a script, such as ``bench/tables.py``, as a module; as when it is run, its folder begins ``sys.path``."""
    path = REPO / "tools" / name
    patch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"tools_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
