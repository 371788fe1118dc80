"""The server that ``python_processes.py`` forks; a helper of these tests.

A forked process keeps a spare fork of itself: should it start the fork server of ``multiprocessing``, the spare becomes
that server, with all modules at hand.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import multiprocessing.util
import os
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

PRELOADED = (
    "pandas",
    "pipelines.cli.app",
    "pipelines.commands.predict",
    "pipelines.commands.train",
    "pipelines.models.run_model",
    "pipelines.streaming.live_view",
    "pipelines.streaming.run",
    "tcam.boxes.components_sweep",
    "tcam.supervision.crf.gaussian_terms",
    "tcam.supervision.objective",
    "torch._dynamo",
)


def serve(descriptor: int) -> None:
    """Serve requests until standard input is closed; in a forked process, run the code that was asked for."""
    for name in PRELOADED:
        __import__(name)
    from numba.core.registry import cpu_target

    cpu_target.target_context.refresh()  # numba imports half of itself with the first function it loads
    cpu_target.typing_context.refresh()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector, socket.socket(fileno=descriptor) as listener:
        selector.register(0, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        forked = None
        while forked is None:
            key = selector.select()[0][0]
            if key.fd == 0:
                return
            if key.fileobj is listener:
                forked = _fork(listener.accept()[0], selector)
            else:
                selector.unregister(key.fd)
                _report(key.fd, *key.data)
    _run(*forked)


def _fork(connection: socket.socket, selector: selectors.BaseSelector) -> tuple[dict[str, Any], list[int]] | None:
    """Start what a caller asks for; returns the request in the new process, None in the server."""
    request, files = _read_request(connection)
    child = os.fork()
    if child == 0:
        for descriptor, key in selector.get_map().items():
            if key.data is not None:
                os.close(descriptor)
                key.data[1].close()
        connection.close()
        return request, files
    for file in files:
        os.close(file)
    connection.sendall(child.to_bytes(8, "big", signed=True))
    selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, connection))
    return None


def _read_request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    _, files, _, _ = socket.recv_fds(connection, len(b"files"), 16)
    with connection.makefile() as lines:
        return json.loads(lines.readline()), files


def _report(descriptor: int, child: int, connection: socket.socket) -> None:
    os.close(descriptor)
    _, status = os.waitpid(child, 0)
    with connection, suppress(BrokenPipeError):  # nobody may wait for it any more
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _run(request: dict[str, Any], files: list[int]) -> None:
    """Become ``python -c CODE ARGUMENTS FILES``, the first three files its standard streams, and run the code."""
    for own, file in enumerate(files[:3]):
        os.dup2(file, own)
        os.close(file)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _, _, code, *arguments = request["arguments"]
    sys.argv = ["-c", *arguments, *map(str, files[3:])]
    code = _code_of_spare() or code
    status: object = 0
    try:
        exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    _end(status)


def _end(status: object) -> None:
    """End as an interpreter does, but leave the memory to the system: to free a forked heap takes two seconds."""
    if status is not None and not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status or 0)


def _code_of_spare() -> str | None:
    """Fork a spare; returns None at once, and in the spare the code of the fork server once it is to become one."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        return _wait_for_code(theirs)
    theirs.close()
    start = multiprocessing.util.spawnv_passfds

    def spawnv_passfds(path: bytes, args: list[str], passfds: list[int]) -> int:
        if "multiprocessing.forkserver" not in args[-1] or ours.fileno() == -1:
            return start(path, args, passfds)
        with ours:
            request = {"code": args[-1], "numbers": passfds, "environment": dict(os.environ), "folder": str(Path.cwd())}
            socket.send_fds(ours, [b"files"], passfds)
            ours.sendall(json.dumps(request).encode() + b"\n")
        return child

    multiprocessing.util.spawnv_passfds = spawnv_passfds
    return None


def _wait_for_code(connection: socket.socket) -> str:
    """Wait as the spare, which ends with the process it belongs to; leaves descriptors, environment and folder set."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with connection:
        message, files, _, _ = socket.recv_fds(connection, len(b"files"), 2)
        if not message:
            os._exit(0)
        with connection.makefile() as lines:
            request = json.loads(lines.readline())
    out_of_the_way = [fcntl.fcntl(file, fcntl.F_DUPFD, 512) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(out_of_the_way, request["numbers"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return request["code"]
