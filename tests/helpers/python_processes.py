"""Python processes that start without importing PyTorch; a helper of these tests.

``python_process(code, ...)`` does what ``subprocess.Popen([sys.executable, "-c", code, ...])`` does, but forks a server
that has imported the packages and computed nothing: ``process_server.py``, one for all workers of pytest. Files,
environment, folder, session, signals and exit code are those of a process of its own; ``fresh=True`` starts an
interpreter all the same.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
TCAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with SIGINT ignored
from pipelines.cli.app import main
main()
"""
FORK_SERVER = """
import sys
from multiprocessing.forkserver import main
main(*map(int, sys.argv[1:]), [])
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
    """A process that the server forks and waits for; the numbers it knows ``pass_fds`` by end its arguments."""

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments
        ends = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
        assert asked["preexec_fn"] is None
        environment = os.environ if asked["env"] is None else asked["env"]
        request = {
            "arguments": list(asked["args"]),
            "folder": os.fspath(asked["cwd"] or Path.cwd()),
            "environment": {name: os.fspath(value) for name, value in environment.items()},
            "new_session": asked["start_new_session"],
        }
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server_address())
        files = [*(own if end == -1 else end for own, end in enumerate(ends)), *asked["pass_fds"]]
        socket.send_fds(self._server, [b"files"], files)
        self._server.sendall(json.dumps(request).encode() + b"\n")
        self.pid = self._answer()
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in pipes))

    def _answer(self) -> int:
        answer = self._server.recv(8, socket.MSG_WAITALL)
        if len(answer) != 8:
            raise RuntimeError("the server of tests/helpers/process_server.py has ended")
        return int.from_bytes(answer, "big", signed=True)

    def leave(self) -> None:
        """Do not wait for its end, which nobody asks for."""
        self._server.detach()
        self.returncode = 0

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
    """Return the socket of the server, which ends with the process that started it; the first call starts it."""
    shared = os.environ.get("TCAM_TEST_SERVER")
    if shared is not None:
        return shared
    folder = tempfile.TemporaryDirectory(prefix="tcam-server-")
    address = f"{folder.name}/socket"
    code = "import sys; from tests.helpers import process_server; process_server.serve(int(sys.argv[1]))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # a fork takes no threads along
    with socket.socket(socket.AF_UNIX) as listener:  # who calls before the server is ready, waits
        listener.bind(address)
        listener.listen()
        number = listener.fileno()
        command = [sys.executable, "-c", code, str(number)]
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdin=subprocess.PIPE, pass_fds=[number])

    def end(own: int = os.getpid()) -> None:
        if os.getpid() == own:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
            folder.cleanup()

    atexit.register(end)
    return address


def share_server() -> None:
    """Start the server for this process and the pytest workers that it starts from now on."""
    os.environ["TCAM_TEST_SERVER"] = server_address()


def fork_children_from_server() -> None:
    """Let ``multiprocessing`` take its fork server from ours in this process; for pytest workers.

    A child of that server is no child of this process: it would not be missed if it ended, and it belongs to another
    process group. Processes that the tests send signals to keep their own (see ``process_server.py``).
    """

    def ensure_running(self: forkserver.ForkServer) -> None:
        with self._lock:
            resource_tracker.ensure_running()
            if self._forkserver_address is not None:
                return
            with socket.socket(socket.AF_UNIX) as listener:
                address = connection.arbitrary_address("AF_UNIX")
                listener.bind(address)
                listener.listen()
                alive_reader, alive_writer = os.pipe()
                ForkedProcess([sys.executable, "-c", FORK_SERVER], pass_fds=(listener.fileno(), alive_reader)).leave()
                os.close(alive_reader)
            self._forkserver_address, self._forkserver_alive_fd = address, alive_writer

    forkserver.ForkServer.ensure_running = ensure_running
