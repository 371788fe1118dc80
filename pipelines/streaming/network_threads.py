"""Threads that run the network while another thread reads frames and extracts boxes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from pipelines.models.engine import Threads


@contextmanager
def network_threads(kind: Threads, most: int) -> Iterator[tuple[Executor, int]]:
    """Yield threads for an engine, and their number: one, or for ``each`` as many as torch may use, at most ``most``.

    Unless the engine's kind is ``all``, each thread uses one processor; torch's setting for other threads stays.
    """
    torch = sys.modules.get("torch")
    if torch is None or kind == "all":
        with ThreadPoolExecutor(1, thread_name_prefix="network") as pool:
            yield pool, 1
        return
    before = torch.get_num_threads()
    count = min(most, before) if kind == "each" else 1
    begun = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # else the first use of torch in this thread would override the next line
        torch.set_num_threads(1)  # for this thread, and for threads that start later
        begun.wait()

    with ThreadPoolExecutor(count, thread_name_prefix="network", initializer=begin) as pool:
        for _ in range(count):
            pool.submit(int)
        begun.wait()
        torch.set_num_threads(before)
        yield pool, count
