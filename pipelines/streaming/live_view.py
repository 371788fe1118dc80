"""The live page of ``tcam stream``: the newest frame with its box and map, for browsers on this machine.

A browser requests anything newer than what it has, draws it and requests again, so no frame ever waits for a browser.
Pictures are encoded in the thread that answers: once per frame for all browsers, and only on request.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final

from PIL import Image

from pipelines.inference.frames import FramePrediction
from pipelines.inference.overlay import HEAT_STRENGTH, encode_heat
from pipelines.run.console import console
from pipelines.run.page_template import render_page
from pipelines.run.signals import Interrupted
from tcam.errors import ConfigError, StreamError
from tcam.video.pixels import Pixels

_WIDEST: Final = 1280
"""Largest width of the picture in pixels; wider frames are scaled down."""
_QUALITY: Final = 80
_WAIT_S: Final = 1.0
"""How long a request waits for a newer frame, and how long closing waits until all browsers know of the end."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """The newest frame: its prediction, its JSON row, a function that returns the figures, and its time of arrival."""

    frame: FramePrediction
    row: Mapping[str, object]
    figures: Callable[[], Mapping[str, float]]
    came_s: float


class LiveView:
    """Serves the page on 127.0.0.1 inside its ``with`` block; when the block ends, the page shows why.

    Args:
        port: of 127.0.0.1; 0 takes a free one.
        name: of the source, shown as the title.

    Raises:
        ConfigError: the port is not free.
    """

    def __init__(self, port: int, name: str) -> None:
        self.page, self.policy = render_page(
            "live.html",
            {"title": name, "lead": "What tcam stream sees now.", "strength": round(100 * HEAT_STRENGTH)},
            styles=("page.css", "live.css"),
            script="live.js",
            more_policy="connect-src 'self'",
        )
        self._changed, self._encoding = threading.Condition(), threading.Lock()
        self._shown: _Shown | None = None
        self._encoded: tuple[_Shown, dict[str, object]] | None = None
        self._number, self._ended = 0, ""
        self._watching: set[object] = set()
        try:
            self._server = _Server(port, self)
        except OSError as error:
            raise ConfigError(
                f"--view {port}: expected a free port of 127.0.0.1, found: {error.strerror}; take another, or 0 for any"
            ) from None
        self.address = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> LiveView:
        serve = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="live view", daemon=True)
        serve.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended, self._number = _why(error), self._number + 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._watching, timeout=_WAIT_S)
        self._server.shutdown()
        self._server.server_close()

    def show(
        self, frame: FramePrediction, row: Mapping[str, object], figures: Callable[[], Mapping[str, float]]
    ) -> None:
        """Set the newest frame; takes almost no time.

        Args:
            frame: with its original pixels.
            row: its JSON row.
            figures: returns the figures of the whole stream; called in another thread, when a browser asks.
        """
        with self._changed:
            self._shown, self._number = _Shown(frame, row, figures, time.monotonic()), self._number + 1
            self._changed.notify_all()

    def newer_than(self, number: int, *, watcher: object) -> tuple[bytes, bool]:
        """Wait for a frame newer than the browser's; return the state as JSON, and whether it is the last.

        The pictures are left out if there is nothing newer.
        """
        with self._changed:
            self._watching.add(watcher)
            self._changed.wait_for(lambda: self._number != number, timeout=_WAIT_S)
        with self._encoding:  # after a wait for this lock, answer with the newest frame
            with self._changed:
                shown, newest, ended = self._shown, self._number, self._ended
            state: dict[str, object] = {"number": newest, "ended": ended}
            if shown is not None:
                state |= {"row": shown.row, "figures": shown.figures(), "quiet_s": time.monotonic() - shown.came_s}
                if newest != number:
                    state |= self._pictures(shown)
        return json.dumps(state).encode(), bool(ended)

    def forget(self, watcher: object) -> None:
        """Note that a browser has disconnected, or knows of the end."""
        with self._changed:
            self._watching.discard(watcher)
            self._changed.notify_all()

    def _pictures(self, shown: _Shown) -> dict[str, object]:
        if self._encoded is None or self._encoded[0] is not shown:
            if shown.frame.original is None or shown.frame.map is None:
                raise ValueError("the live page needs predictions made with keep_original=True")
            pictures: dict[str, object] = {
                "frame": _as_url("image/jpeg", encode_frame(shown.frame.original)),
                "heat": _as_url("image/png", encode_heat(shown.frame.map)),
                "size": shown.frame.size,
            }
            self._encoded = (shown, pictures)
        return self._encoded[1]


def open_view(port: int | None, name: str, *, show: bool) -> contextlib.AbstractContextManager[LiveView | None]:
    """Serve the page and print its address, or do nothing without a port; ``show`` opens it in a browser.

    Raises:
        ConfigError: the port is not free.
    """
    if port is None:
        return contextlib.nullcontext()
    view = LiveView(port, name)
    print(f"live view: {view.address}", file=sys.stderr, flush=True)  # noqa: T201 (asked for, so also with --quiet)
    if show:
        threading.Thread(target=_open_browser, args=(view.address,), name="open browser", daemon=True).start()
    return view


def encode_frame(frame: Pixels) -> bytes:
    """Encode a frame, uint8 ``[3, H, W]`` RGB, as a JPEG of at most 1280 columns."""
    planes = [Image.fromarray(plane) for plane in frame]  # merged after resizing, which takes a third of the time
    _, height, width = frame.shape
    if width > _WIDEST:
        size = (_WIDEST, max(1, round(height * _WIDEST / width)))
        planes = [plane.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0) for plane in planes]
    file = io.BytesIO()
    Image.merge("RGB", planes).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _as_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _why(error: BaseException | None) -> str:
    if error is None:
        return "source ended"
    if isinstance(error, Interrupted):
        return "interrupted"
    return f"{'lost' if isinstance(error, StreamError) else 'error'}: {str(error) or type(error).__name__}"


def _open_browser(address: str) -> None:
    # In a process of its own: a browser would write to our standard output, hold it open and receive our Ctrl-C.
    code = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.argv[1]))"
    nothing = subprocess.DEVNULL
    opening = subprocess.Popen(  # noqa: S603 (this Python, and our own address)
        [sys.executable, "-I", "-c", code, address],
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        start_new_session=True,
    )
    if opening.wait() != 0:
        console.print(f"no browser could be opened here; the live view is at {address}")


class _Server(ThreadingHTTPServer):
    def __init__(self, port: int, view: LiveView) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.view = view
        names = ("127.0.0.1", "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names} | (
            set(names) if self.server_port == 80 else set()
        )

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a browser that disconnects is not an error
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection of a browser, with the page or its state."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server_version, sys_version = "tcam", ""

    def do_GET(self) -> None:
        view = self.server.view
        asked = re.fullmatch(r"/next\?after=([0-9]{1,15})", self.path)
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            # Another host name: a foreign site may have pointed it at this machine to read the page (DNS rebinding).
            self._reply(HTTPStatus.FORBIDDEN, "text/plain", b"expected the address that tcam stream printed\n")
        elif asked:
            state, is_last = view.newer_than(int(asked[1]), watcher=self)
            self._reply(HTTPStatus.OK, "application/json", state)
            if is_last:
                view.forget(self)
        elif self.path == "/":
            self._reply(HTTPStatus.OK, "text/html", view.page.encode())
        else:
            self._reply(HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing here\n")

    def finish(self) -> None:
        self.server.view.forget(self)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the standard library)
        """Log nothing: standard error is for the stream."""

    def _reply(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"{self.server.view.policy}; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
