"""Python processes that start without importing PyTorch; a helper of these tests.

``python_process(code, ...)`` does what ``subprocess.Popen([sys.executable, "-c", code, ...])`` does, but forks a server
that has imported the packages and computed nothing. Files, environment, folder, session, signals and exit code are
those of a process of its own; ``fresh=True`` starts an interpreter all the same.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
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
TCAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with SIGINT ignored
from pipelines.cli.app import main
main()
"""


def tcam_process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start ``tcam``, SIGINT not ignored, its output in pipes of text; see ``python_process``."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return python_process(TCAM, *arguments, **options)


def python_process(code: str, *arguments: object, fresh: bool = False, **options: Any) -> subprocess.Popen[str]:
    """Start ``python -c CODE ARGUMENTS``: forked from the server, or a fresh interpreter.

    Args:
        code: what it runs.
        arguments: its ``sys.argv[1:]``.
        fresh: start an interpreter, as a user does.
        options: of ``subprocess.Popen``.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    kind = subprocess.Popen if fresh or not sys.platform.startswith("linux") else ForkedProcess
    return kind(command, **options)


class ForkedProcess(subprocess.Popen[str]):
    """A process that the server forks and waits for."""

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments
        ends = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
        assert asked["preexec_fn"] is None
        assert not asked["pass_fds"]
        environment = os.environ if asked["env"] is None else asked["env"]
        request = {
            "arguments": list(asked["args"]),
            "folder": os.fspath(asked["cwd"] or Path.cwd()),
            "environment": {name: os.fspath(value) for name, value in environment.items()},
            "new_session": asked["start_new_session"],
        }
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server_address())
        files = [own if end == -1 else end for own, end in enumerate(ends)]
        socket.send_fds(self._server, [b"files"], files)
        self._server.sendall(json.dumps(request).encode() + b"\n")
        self.pid = self._answer()
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in pipes))

    def _answer(self) -> int:
        answer = self._server.recv(8, socket.MSG_WAITALL)
        if len(answer) != 8:
            raise RuntimeError("the server of tests/helpers/python_processes.py has ended")
        return int.from_bytes(answer, "big", signed=True)

    def poll(self) -> int | None:
        """Return the exit code, or None as long as it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._server, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = self._answer()
            self._server.close()
        return self.returncode


@cache
def server_address() -> str:
    """Return the socket of the server of this process, which ends with this process; the first call starts it."""
    folder = tempfile.TemporaryDirectory(prefix="tcam-server-")
    address = f"{folder.name}/socket"
    code = "import sys; from tests.helpers import python_processes as server; server.serve(sys.argv[1])"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # a fork takes no threads along
    process = subprocess.Popen(
        [sys.executable, "-c", code, address],
        cwd=REPO,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    if process.stdout.read(5) != b"ready":
        raise RuntimeError("the server of tests/helpers/python_processes.py does not start")
    process.stdout.close()

    def end(own: int = os.getpid()) -> None:
        if os.getpid() == own:
            process.stdin.close()
            process.wait()
            folder.cleanup()

    atexit.register(end)
    return address


def serve(address: str) -> None:
    """Serve requests until standard input is closed; in a forked process, run the code that was asked for."""
    for name in PRELOADED:
        __import__(name)
    from numba.core.registry import cpu_target

    cpu_target.target_context.refresh()  # numba imports half of itself with the first function it loads
    cpu_target.typing_context.refresh()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        os.write(1, b"ready")
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
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
    _, files, _, _ = socket.recv_fds(connection, len(b"files"), 3)
    with connection.makefile() as lines:
        return json.loads(lines.readline()), files


def _report(descriptor: int, child: int, connection: socket.socket) -> None:
    os.close(descriptor)
    _, status = os.waitpid(child, 0)
    with connection, suppress(BrokenPipeError):  # nobody may wait for it any more
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _run(request: dict[str, Any], files: list[int]) -> None:
    """Become ``python -c CODE ARGUMENTS`` with these files as its standard streams, and run the code."""
    for own, file in enumerate(files):
        os.dup2(file, own)
        os.close(file)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _, _, code, *arguments = request["arguments"]
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
