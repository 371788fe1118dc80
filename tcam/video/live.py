"""Read frames of a camera, a network address or standard input as they arrive; ``reader.py`` reads local files.

Only here may FFmpeg open anything but a local file, and only with the protocols of the scheme that the user named: an
``http`` source cannot lead to a local file, nor a file (``container.py``) to a host.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NoReturn
from urllib.parse import urlsplit

from tcam.errors import StreamError, VideoError
from tcam.types import Size
from tcam.video.container import FORMATS, MAX_PIXELS, decode_packet, main_stream, naming_faults, reason, require_av
from tcam.video.reader import DecodedFrame, scale_frames

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Kind = Literal["camera", "network", "stdin"]

_RTSP: Final = {"protocol_whitelist": "rtsp,rtsps,rtp,srtp,udp,tcp,tls", "rtsp_flags": "prefer_tcp"}
_HTTP: Final = {
    "protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto",
    "multiple_requests": "1",  # without, FFmpeg asks again over connections that some servers have closed
}
_OPTIONS: Final = {
    "rtsp": {**_RTSP, "format_whitelist": f"{FORMATS},rtsp,sdp,rtp"},
    "rtsps": {**_RTSP, "format_whitelist": f"{FORMATS},rtsp,sdp,rtp"},
    "http": {**_HTTP, "format_whitelist": f"{FORMATS},hls"},
    "https": {**_HTTP, "format_whitelist": f"{FORMATS},hls"},
    "rtmp": {"protocol_whitelist": "rtmp,tcp", "format_whitelist": FORMATS},
    "rtmps": {"protocol_whitelist": "rtmps,tcp,tls", "format_whitelist": FORMATS},
    "udp": {"protocol_whitelist": "udp", "format_whitelist": FORMATS},
    "tcp": {"protocol_whitelist": "tcp", "format_whitelist": FORMATS},
    "pipe": {"protocol_whitelist": "pipe", "format_whitelist": FORMATS},
}
SCHEMES: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp")
_ANALYSE_US: Final = 1_000_000
"""How much of a live source FFmpeg analyses before the first frame; its default of 5 s would be lag."""
_ANOTHER: Final = "name another source"
_MP4_ENDINGS: Final = (".mp4", ".m4v", ".mov")
_NEEDS_RANGES: Final = "an mp4 whose table of contents comes last needs a server that answers range requests"
_FASTSTART: Final = "write it with 'ffmpeg -i IN -c copy -movflags +faststart OUT.mp4'"
_CAMERA_FORMATS: Final = {"linux": ("video4linux2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


@dataclass(frozen=True, slots=True)
class LiveSource:
    """A live source: ``address`` is a camera's number, a URL (with its credentials) or ``-`` (standard input)."""

    address: str
    kind: Kind

    @classmethod
    def parse(cls, text: str) -> LiveSource | None:
        """Return the live source that a text names; None if it names a file."""
        if text == "-":
            return cls(text, "stdin")
        if text.isascii() and text.isdigit():
            return cls(text, "camera")
        return cls(text, "network") if text.partition("://")[0].lower() in SCHEMES and "://" in text else None

    def __str__(self) -> str:
        """Return the address without user, password and query, which may hold a key."""
        if self.kind != "network":
            return "standard input" if self.kind == "stdin" else f"camera {self.address}"
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class LiveStream:
    """An open live source; ``endless`` says that it has no end of its own, so that an end means it was lost."""

    def __init__(self, source: LiveSource, container: InputContainer, stream: VideoStream) -> None:
        self._source, self._container, self._stream = source, container, stream
        scheme = source.address.partition("://")[0].lower()
        self.endless = source.kind != "stdin" and (scheme not in ("http", "https") or container.duration is None)

    def frames(self, *, size: Size, keep_original: bool = False) -> Iterator[DecodedFrame]:
        """Return the frames that decode, scaled as ``stream_frames`` does; times count from the first one.

        Raises:
            StreamError: a camera or network source was lost.
            VideoError: standard input or a file on a server holds something that cannot be read as it comes.
        """
        with naming_faults(str(self._source), remedy=_ANOTHER):
            yield from scale_frames(self._decoded(), self._stream, size=size, keep_original=keep_original)

    def _decoded(self) -> Iterator[VideoFrame]:
        damage: list[str] = []
        # Of what has an end, and only until a frame came: then the table of contents did not come last.
        format_name = "" if self.endless else self._container.format.name
        try:
            for packet in self._container.demux(self._stream):
                for frame in decode_packet(self._stream, packet, on_error=damage):
                    if frame.width > 0 and frame.height > 0 and frame.width * frame.height <= MAX_PIXELS:
                        format_name = ""
                        yield frame
                damage.clear()
        except Exception as error:  # a damaged stream may bring out anything
            _refuse(self._source, error, format_name=format_name, was_open=True)
        if format_name:
            _refuse(self._source, EOFError("it ended before its first frame"), was_open=True)


@contextmanager
def open_live(source: LiveSource, *, open_timeout_s: float, read_timeout_s: float) -> Iterator[LiveStream]:
    """Open a live source.

    Raises:
        StreamError: a network source does not answer, or not in time.
        VideoError: there is no such camera, standard input holds no video, or the source has no video in it.
        MissingPartError: PyAV is not installed.
    """
    require_av()
    import av

    try:
        address, format_name, options = _how_to_open(source)
        container = av.open(
            address,
            format=format_name,
            options=options,
            timeout=(open_timeout_s, read_timeout_s),
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
        _refuse(source, error)
    with container:
        with naming_faults(str(source), remedy=_ANOTHER):
            stream = main_stream(str(source), container)
        yield LiveStream(source, container, stream)


def _how_to_open(source: LiveSource) -> tuple[str, str | None, dict[str, str]]:
    if source.kind == "camera":
        if sys.platform not in _CAMERA_FORMATS:
            raise VideoError(f"{source}: cameras cannot be read on {sys.platform}; name a file or a network address")
        format_name, address = _CAMERA_FORMATS[sys.platform]
        return address.format(source.address), format_name, {}
    address = "pipe:0" if source.kind == "stdin" else source.address
    scheme = address.partition(":")[0].lower()
    return address, None, {**_OPTIONS[scheme], "analyzeduration": str(_ANALYSE_US)}


def _refuse(source: LiveSource, error: Exception, *, format_name: str = "", was_open: bool = False) -> NoReturn:
    """Raise the one-line error of a source that cannot be opened or read on; ``format_name`` until a frame came."""
    import av

    why = "nothing arrived in time" if isinstance(error, av.error.ExitError) else reason(error)
    on_server = source.address.partition("://")[0].lower() in ("http", "https")
    if on_server and format_name.startswith("mov"):
        raise VideoError(
            f"{source}: no frame came ({why}): {_NEEDS_RANGES}; download it and name the file, or {_FASTSTART}"
        ) from None
    if source.kind == "stdin":
        remedy = "pipe MPEG-TS or Matroska"
        if format_name.startswith("mov"):
            why, remedy = "an mp4 whose table of contents comes last", f"name the file itself, or {_FASTSTART}"
        raise VideoError(f"{source}: cannot be read as it comes ({why}); {remedy}") from None
    if was_open:
        raise StreamError(f"{source}: lost ({why})") from None
    if source.kind == "camera":
        raise VideoError(
            f"{source}: cannot be opened ({why}); plug one in, name another number, or a file or address"
        ) from None
    cut_off = isinstance(error, (av.error.ExitError, av.error.InvalidDataError))  # FFmpeg gives either for a timeout
    mp4 = on_server and cut_off and str(source).lower().endswith(_MP4_ENDINGS)
    remedy = "check the address and that the source is running" + (f"; {_NEEDS_RANGES}" if mp4 else "")
    raise StreamError(f"{source}: cannot be opened ({why}); {remedy}") from None
