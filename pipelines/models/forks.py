"""Let a localizer work in a process that was forked from one where it was loaded or used."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tcam.errors import ForkError

_SOFT: Final = 1
"""``omp_pause_soft``: threads end, settings stay."""


@functools.cache
def end_threads_before_forks() -> None:
    """End PyTorch's threads on the CPU whenever this process forks; parent and child start new ones as needed.

    GNU OpenMP keeps a pool of threads for each thread that computes. A fork copies the pool but not its threads, so the
    child would wait for them forever in its first convolution. Loading a run is enough to create such a pool.
    """
    import torch

    pause = getattr(ctypes.CDLL(torch._C.__file__), "omp_pause_resource_all", None)
    if pause is not None and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=functools.partial(pause, _SOFT))


@contextmanager
def naming_forks() -> Iterator[None]:
    """Turn PyTorch's errors after a fork into one line that says what to do.

    Raises:
        ForkError: the parent process had used a GPU, or computed gradients, whose threads a child does not have.
    """
    try:
        yield
    except RuntimeError as error:
        if "fork" not in str(error):
            raise
        parent = "that had made maps from gradients" if "autograd" in str(error) else "that had used a GPU"
        raise fork_error(parent) from None


def fork_error(parent: str) -> ForkError:
    """Return the error for a localizer that cannot work in this process because of what its parent had done."""
    return ForkError(
        f"the localizer cannot work in a process forked from one {parent}: start the process by "
        "multiprocessing.get_context('spawn') and hand the localizer over, or load it there"
    )


def keep_for_ever(thing: object) -> None:
    """Never free an object: freeing one whose threads a fork left behind would wait for them forever."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
