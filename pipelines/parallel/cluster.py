"""The Ray cluster that a command uses: start or join it, and leave no process behind."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pipelines.run.signals import finishing
from tcam.errors import MissingPartError, TcamError, one_line

_STORE: Final = 2**30
"""Object store, in bytes, of a Ray started here: enough for a model. Ray's default is a third of the memory."""
_LEAVE_S: Final = 1.0


class ClusterError(TcamError):
    """The Ray cluster cannot be reached, or is too small."""

    exit_code = 6


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Keep one cluster for several maps within the block, because starting Ray takes seconds.

    Raises:
        MissingPartError: ray is not installed.
        ClusterError: no cluster answers, or none can be started.
    """
    import_ray()
    began = connect_ray(address)
    try:
        yield
    finally:
        if began:
            leave_ray(address)


def set_ray_up() -> None:
    """Set the environment variables of Ray; call it before Ray is imported or started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will do: silences a warning
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets its workers starve on a busy machine
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # 30 by itself: too few on a busy machine


def leave_ray(address: str | None) -> None:
    """Leave the cluster. If this process started it, wait until all its processes have ended (some outlive Ray).

    Args:
        address: address of a cluster that others started, whose processes are left running; None if this process
            started it.
    """
    import ray

    started = _below_this_process(("raylet", "gcs_server", "ray::")) if address is None else []
    ray.shutdown()
    until = time.monotonic() + _LEAVE_S
    while time.monotonic() < until and any(_alive(*one) for one in started):
        time.sleep(0.05)
    for process, began in started:
        if _alive(process, began):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def kill_workers(address: str | None) -> None:
    """Kill Ray's workers and agents; the rest of a cluster that this process started ends with it.

    Args:
        address: address of a cluster that others started, which is not touched; None if this process started it.
    """
    for process, _ in _below_this_process(("ray::",)) if address is None else []:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _below_this_process(names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return the descendants of this process with one of these names, and when each started (Linux)."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = []
    for process in parents:
        above = parents[process]
        while above in parents and above != os.getpid():
            above = parents[above]
        with suppress(OSError):
            command = Path(f"/proc/{process}/cmdline").read_text(errors="replace")
            if above == os.getpid() and any(name in command for name in names):
                found.append((process, _birth(process)))
    return found


def _birth(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(process: int, began: str) -> bool:
    return began != "" and _birth(process) == began


def import_ray() -> ModuleType:
    """Import ray.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingPartError(
            f"--ray needs the package ray, which cannot be imported ({one_line(error)}): pip install 'tcam[ray]', or "
            "leave --ray out: --workers N uses the processors of this machine"
        ) from None
    module: ModuleType = ray
    return module


def connect_ray(address: str | None) -> bool:
    """Start or join a cluster, unless this process is connected already.

    Returns:
        Whether it connected, so that the caller must leave the cluster again.

    Raises:
        ClusterError: no cluster answers, or none can be started.
    """
    import ray

    if ray.is_initialized():
        return False
    _knock(address)
    set_ray_up()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": _STORE}
    try:
        with finishing():
            ray.init(address=address or "local", **options)
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        ray.shutdown()
        what = f"no Ray cluster answers at {address}" if address else "Ray cannot be started"
        raise ClusterError(f"{what} ({one_line(error)}); {_REMEDY}") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return True


_REMEDY: Final = (
    "start one with 'ray start --head', or leave --ray and --ray-address out: --workers N uses this machine"
)


def _knock(address: str | None) -> None:
    """Try to connect to an address; Ray itself would try for a minute."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {address} ({error.strerror or error}); {_REMEDY}") from None
