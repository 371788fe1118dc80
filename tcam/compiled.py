"""Functions compiled by numba, an ordinary wheel: at their first call, some seconds, then kept on disk.

What is kept counts as old where the function's own file changed, not where this one or that of a function it calls did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile with the result kept on disk, or in memory where no folder can be written."""
    return _compile(function, fastmath=False)


def compiled_sums(function: _Function) -> _Function:
    """Compile as ``compiled`` does, but so that terms of a sum may be added in any order: several at once."""
    return _compile(function, fastmath={"reassoc", "nsz", "contract"})


def _compile(function: _Function, *, fastmath: bool | set[str]) -> _Function:
    try:
        return cast("_Function", njit(cache=True, nogil=True, fastmath=fastmath)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast("_Function", njit(nogil=True, fastmath=fastmath)(function))
