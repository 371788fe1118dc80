"""Live sources on the loopback for tests: MPEG-TS over TCP, each frame at its time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction

import av
import numpy as np


@contextmanager
def serve_frames(
    *, frames: int, fps: int | None = None, connections: int = 1, sent_at: list[float] | None = None
) -> Iterator[int]:
    """Give the port of a server that sends a video to each of some connections, one after the other, then refuses.

    With ``fps`` frames are sent at that rate, else at once; ``sent_at`` gets the ``time.monotonic`` of each.
    """
    server = socket.create_server(("127.0.0.1", 0))
    leaving = threading.Event()

    def run() -> None:
        with server, suppress(OSError):
            for _ in range(connections):
                connection, _ = server.accept()
                with connection, connection.makefile("wb") as pipe:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
                    _send(pipe, frames, fps, leaving, sent_at if sent_at is not None else [])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        leaving.set()
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(timeout=5)


def _send(pipe, frames: int, fps: int | None, leaving: threading.Event, sent_at: list[float]) -> None:
    rate = fps or 30
    texture = np.random.default_rng(0).integers(0, 255, (96, 256, 3)).astype(np.uint8)
    began = time.monotonic()
    with (
        suppress(OSError, av.error.FFmpegError),
        av.open(pipe, "w", format="mpegts", options={"flush_packets": "1"}) as container,
    ):
        options = {"tune": "zerolatency", "preset": "ultrafast", "g": "15"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(frames):
            if leaving.is_set():
                return
            if fps:
                time.sleep(max(0.0, began + index / rate - time.monotonic()))
            left = 2 * index % 128
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[:, left : left + 128]), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            sent_at.append(time.monotonic())
            container.mux(stream.encode(frame))
            pipe.flush()
        container.mux(stream.encode(None))
