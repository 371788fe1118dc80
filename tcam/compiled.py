"""Compile functions with numba at their first call, which takes seconds; the result is cached on disk.

A cached function is compiled again if its own file changed, but not if this file or that of a function it calls did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function; cache it on disk, or in memory if no folder can be written."""
    return _compile(function, fastmath=False)


def compiled_sums(function: _Function) -> _Function:
    """Compile a function like ``compiled``, but let sums be added in any order, several terms at once."""
    return _compile(function, fastmath={"reassoc", "nsz", "contract"})


def _compile(function: _Function, *, fastmath: bool | set[str]) -> _Function:
    try:
        return cast("_Function", njit(cache=True, nogil=True, fastmath=fastmath)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast("_Function", njit(nogil=True, fastmath=fastmath)(function))
