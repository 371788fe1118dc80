"""Live sources on the loopback for tests: MPEG-TS over TCP, UDP and RTSP, each frame at its time."""

from __future__ import annotations

import base64
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
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

    def serve(server: socket.socket, leaving: threading.Event) -> None:
        for _ in range(connections):
            connection, _ = server.accept()
            with connection, connection.makefile("wb") as pipe:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
                _send(pipe, frames, fps, leaving, sent_at if sent_at is not None else [])

    with _serving(serve) as port:
        yield port


@contextmanager
def serve_rtsp(*, frames: int, fps: int | None = None, user: str) -> Iterator[int]:
    """Give the port of an RTSP server that plays a video once, over TCP, to who shows ``user`` (``name:password``)."""
    secret = base64.b64encode(user.encode()).decode()
    description = "v=0\r\ns=door\r\nm=video 0 RTP/AVP 33\r\na=rtpmap:33 MP2T/90000\r\na=control:track\r\n"
    answers = {
        "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN", ""),
        "DESCRIBE": ("Content-Type: application/sdp", description),
        "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1", ""),
        "PLAY": ("RTP-Info: seq=0", ""),
    }

    def serve(server: socket.socket, leaving: threading.Event) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as pipe:
            method = state = ""
            while (method, state) != ("PLAY", "200 OK"):
                request = list(iter(lambda: pipe.readline().decode().strip(), ""))
                method = request[0].partition(" ")[0] if request else "TEARDOWN"
                if method not in answers:
                    return
                state, (head, body) = "200 OK", answers[method]
                if f"Authorization: Basic {secret}" not in request:
                    state, head, body = "401 Unauthorized", 'WWW-Authenticate: Basic realm="door"', ""
                number = next(line for line in request if line.startswith("CSeq"))
                lines = f"RTSP/1.0 {state}", number, "Session: 1", head, f"Content-Length: {len(body)}", "", body
                pipe.write("\r\n".join(lines).encode())
                pipe.flush()
            _send(_RealTime(pipe), frames, fps, leaving, [])

    with _serving(serve) as port:
        yield port


class _RealTime:
    """Puts MPEG-TS into packets of RTP, between the lines of an RTSP connection."""

    def __init__(self, pipe) -> None:
        self._pipe, self._number = pipe, 0

    def write(self, data) -> int:
        for begin in range(0, len(data), 7 * 188):
            part = bytes(data[begin : begin + 7 * 188])
            clock = int(90_000 * time.monotonic()) % 2**32
            head = struct.pack(">BBHII", 0x80, 33, self._number % 2**16, clock, 1)
            self._pipe.write(b"$\0" + struct.pack(">H", len(head) + len(part)) + head + part)
            self._number += 1
        return len(data)

    def flush(self) -> None:
        self._pipe.flush()


@contextmanager
def send_datagrams(port: int, *, fps: int) -> Iterator[threading.Event]:
    """Send a video to a UDP port, whether anybody listens or not, until left or the event given is set."""
    leaving = threading.Event()

    def run() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            _send(_Datagrams(sender, port), 10**6, fps, leaving, [])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield leaving
    finally:
        leaving.set()
        thread.join(timeout=5)


class _Datagrams:
    """Puts MPEG-TS into datagrams."""

    def __init__(self, sender: socket.socket, port: int) -> None:
        self._sender, self._address = sender, ("127.0.0.1", port)

    def write(self, data) -> int:
        for begin in range(0, len(data), 7 * 188):
            with suppress(ConnectionRefusedError):  # nobody listens yet
                self._sender.sendto(data[begin : begin + 7 * 188], self._address)
        return len(data)

    def flush(self) -> None:
        pass


@contextmanager
def _serving(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Give the port of a server that lives in a thread until left."""
    server = socket.create_server(("127.0.0.1", 0))
    leaving = threading.Event()

    def run() -> None:
        with server, suppress(OSError):
            serve(server, leaving)

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


def _send(
    pipe, frames: int, fps: int | None, leaving: threading.Event, sent_at: list[float], *, file_format: str = "mpegts"
) -> None:
    rate = fps or 30
    texture = np.random.default_rng(0).integers(0, 255, (96, 256, 3)).astype(np.uint8)
    began = time.monotonic()
    with (
        suppress(OSError, av.error.FFmpegError),
        av.open(pipe, "w", format=file_format, options={"flush_packets": "1"}) as container,
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


@contextmanager
def serve_rtmp(*, frames: int, fps: int | None = None) -> Iterator[int]:
    """Give the port of an RTMP server that plays a video once, whatever its application and stream are called."""

    def serve(server: socket.socket, leaving: threading.Event) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as pipe:
            hello = pipe.read(1537)
            pipe.write(hello[:1] + bytes(1536) + hello[1:])
            pipe.flush()
            heard = pipe.read(1536)[:0]
            started = b"onStatus", 0.0, None, {"level": b"status", "code": b"NetStream.Play.Start"}
            answers = {b"connect": (b"_result", {}, {}), b"createStream": (b"_result", None, 1.0), b"play": started}
            for command, (name, *values) in answers.items():
                asked = b"\2" + struct.pack(">H", len(command)) + command + b"\0"
                while len(heard.partition(asked)[2]) < 8:
                    heard += connection.recv(4096)
                number = struct.unpack(">d", heard.partition(asked)[2][:8])[0]
                body = _amf(name) + b"".join(map(_amf, values if name == b"onStatus" else (number, *values)))
                pipe.write(_rtmp(1, struct.pack(">I", 2**20)) + _rtmp(20, body))
                pipe.flush()
            _send(_Tags(pipe), frames, fps, leaving, [], file_format="flv")

    with _serving(serve) as port:
        yield port


def _amf(value) -> bytes:
    """Write a value as AMF0: a number, None, text or an object."""
    if value is None or isinstance(value, float):
        return b"\5" if value is None else b"\0" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"\2" + struct.pack(">H", len(value)) + value
    fields = (struct.pack(">H", len(name)) + name.encode() + _amf(item) for name, item in value.items())
    return b"\3" + b"".join(fields) + b"\0\0\t"


def _rtmp(kind: int, body: bytes, time_ms: int = 0) -> bytes:
    """Make a message of one chunk."""
    return struct.pack(">B3s3sBI", 3, time_ms.to_bytes(3, "big"), len(body).to_bytes(3, "big"), kind, 0) + body


class _Tags:
    """Turns what is written as FLV to messages of RTMP."""

    def __init__(self, pipe) -> None:
        self._pipe, self._left, self._skip = pipe, b"", 13

    def write(self, data) -> int:
        self._left += bytes(data)
        while len(self._left) >= self._skip + 11:
            kind, size, time_ms = (
                self._left[self._skip],
                *(int.from_bytes(self._left[self._skip + at : self._skip + at + 3], "big") for at in (1, 4)),
            )
            end = self._skip + 11 + size
            if len(self._left) < end + 4:
                break
            self._pipe.write(_rtmp(kind, self._left[self._skip + 11 : end], time_ms))
            self._left, self._skip = self._left[end + 4 :], 0
        return len(data)

    def flush(self) -> None:
        self._pipe.flush()
