"""A real HTTP server for the tests of downloads: it knows ranges, and can drop connections midway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server gives (``files`` by path) and how it misbehaves; ``requests`` are (path, Range header)."""

    files: dict[str, bytes] = field(default_factory=dict)
    drop_after: int | None = None
    drops_left: int = 0
    stall_after: int | None = None
    knows_ranges: bool = True
    tag: str = '"1"'
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(protocol: str = "HTTP/1.0") -> Iterator[Served]:
    served, leaving = Served(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = protocol

        def do_GET(self):
            served.requests.append((self.path, self.headers.get("Range")))
            if self.path not in served.files:
                self.send_error(404)
                return
            content, wanted = served.files[self.path], self._start()
            start = wanted or 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(200 if wanted is None else 206)
            if wanted is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes" if served.knows_ranges else "none")
            self.send_header("ETag", served.tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if served.drop_after is not None and served.drops_left:
                served.drops_left -= 1
                self.wfile.write(content[start : start + served.drop_after])
                self.close_connection = True
                return
            with suppress(OSError):  # who asked may go away in the middle
                self.wfile.write(content[start:][: served.stall_after])
            if served.stall_after is not None:
                leaving.wait(timeout=30)

        def _start(self) -> int | None:
            wanted = self.headers.get("Range")
            fresh = self.headers.get("If-Range") in (None, served.tag)
            return int(wanted[6:-1]) if wanted and fresh and served.knows_ranges else None

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        leaving.set()
        server.shutdown()
        thread.join()
        server.server_close()
