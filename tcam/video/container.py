"""Open an untrusted video file such that it cannot refer to other files or hosts.

FFmpeg guesses the format from the bytes, so a file named ``.mp4`` may be a playlist that names other files or hosts.
Only local files and self-contained formats are allowed here, and only regular files (a FIFO would block forever).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from tcam.errors import MissingPartError, TcamError, VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_PIXELS: Final = 2**26
"""Larger frames (8192 x 8192) are refused: a few kilobytes of video can ask for gigabytes of memory."""

FORMATS: Final = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,gif,apng,h264,hevc,vvc,m4v,h263,h261,mjpeg,"
    "mjpeg_2000,ivf,obu,av1,yuv4mpegpipe,nut,nuv,nsv,mxf,gxf,rm,dv,wtv,vc1,vc1test,dirac,cavsvideo,avs2,avs3,swf,"
    "amv,roq,smk,bink,flic,film_cpk,wc3movie,mtv,anm,ea,thp,dxa,4xm,c93,idcin,ipmovie,psxstr,rl2,siff,tiertexseq,vmd,"
    "wsvqa,yop,mvi,pmp,lmlm4,dhav,ty,ifv,bethsoftvid,bfi,cdxl,cine,jv,lxf,mlv,mm,paf,smush,vividas,xmv,gdv,hnm,kux,"
    "moflex,argo_brp,pva,r3d,rpl,viv,vivo,dnxhd,evc,ipu,filmstrip,hxvs,ingenient,qcp,avs,avr,apv,frm,pdv"
)
"""Formats that cannot name another file or host."""
_OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
_MAX_MESSAGE: Final = 280


def refuse(path: Path | str, found: str, *, remedy: str = "convert or remove the file") -> NoReturn:
    """Raise the one-line error of an unusable video.

    Raises:
        VideoError: always; at most 300 printable characters, the path shortened from the left if need be.
    """
    shown, found = "".join(c if c.isprintable() else "?" for c in str(path)), " ".join(found.split())[:120]
    room = _MAX_MESSAGE - len(found) - len(remedy)
    shown = shown if len(shown) <= room else "..." + shown[-(room - 3) :]
    raise VideoError(f"{shown}: {found}; {remedy}")


@contextmanager
def naming_faults(path: Path | str, *, remedy: str = "convert or remove the file") -> Iterator[None]:
    """Turn any exception that PyAV raises within the block into the one-line error of an unusable video.

    Raises:
        VideoError: in place of any other exception.
    """
    try:
        yield
    except TcamError:
        raise
    except Exception as error:  # a foreign file may bring out anything: a value no enum has, a division by 0
        refuse(path, f"cannot be read ({type(error).__name__}: {reason(error)})", remedy=remedy)


def require_av() -> None:
    """Check that PyAV can be imported.

    Raises:
        MissingPartError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingPartError(f"reading and writing video files needs PyAV ({error}): pip install av") from error


def require_video_file(path: Path) -> None:
    """Check, without opening it, that a path is a regular file and not empty.

    Raises:
        VideoError: it is missing, empty, unreadable, or a FIFO, socket, device or folder.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        refuse(path, f"cannot be read ({getattr(error, 'strerror', None) or error})", remedy="check the path")
    if not stat.S_ISREG(status.st_mode):
        refuse(path, "expected a regular file, found a folder, pipe, socket or device", remedy="remove it")
    if status.st_size == 0:
        refuse(path, "the file is empty (0 bytes)", remedy="copy it again or remove it")
    if not os.access(path, os.R_OK):
        refuse(path, "permission denied", remedy="make the file readable")


@contextmanager
def open_container(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local video file and its main video stream for decoding with one thread.

    Raises:
        VideoError: the file is not a video that may be read, or anything went wrong within the block.
        MissingPartError: PyAV is not installed.
    """
    require_video_file(path)
    require_av()
    import av

    try:
        # The absolute path starts with a slash, so that no part of a file name can be taken for a protocol.
        container = av.open(os.path.abspath(path), options=_OPTIONS, metadata_errors="replace")  # noqa: PTH100
    except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
        refuse(path, f"not a readable video ({reason(error)})")
    with container, naming_faults(path):
        yield container, main_stream(path, container)


def main_stream(path: Path | str, container: InputContainer) -> VideoStream:
    """Return the stream that a player would show: not a cover picture; the default or largest one."""
    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & stream.disposition.attached_pic
    ]
    if not streams:
        refuse(path, "holds no video stream that can be decoded", remedy="remove it or convert it to H.264 mp4")
    best = max(streams, key=lambda s: (bool(s.disposition & s.disposition.default), (s.width or 0) * (s.height or 0)))
    if (best.width or 0) * (best.height or 0) > MAX_PIXELS:
        refuse(path, f"frames of {best.width} x {best.height} pixels are too large", remedy="scale it down first")
    best.codec_context.thread_count = 1
    return best


def read_packets(
    container: InputContainer, stream: VideoStream, *, on_error: list[str]
) -> Iterator[Packet[VideoStream] | None]:
    """Return the packets of one stream; an input error is noted in ``on_error`` and ends the stream.

    The last one is a flush (None, or a packet of size 0): the decoder then hands over the frames it still holds.
    """
    try:
        yield from container.demux(stream)
    except Exception as error:  # a damaged file may bring out anything
        on_error.append(reason(error))
        yield None


def decode_packet(stream: VideoStream, packet: Packet[VideoStream] | None, *, on_error: list[str]) -> list[VideoFrame]:
    """Decode one packet; a damaged one gives no frame and a note in ``on_error``."""
    import av

    try:
        return list(stream.codec_context.decode(packet if packet is not None and packet.size else None))
    except av.error.EOFError:
        return []
    except Exception as error:  # a damaged packet may bring out anything
        on_error.append(reason(error))
        return []


def decode_in_order(container: InputContainer, stream: VideoStream, *, on_error: list[str]) -> Iterator[VideoFrame]:
    """Return every frame that decodes, in presentation order; damage is noted in ``on_error`` and skipped."""
    for packet in read_packets(container, stream, on_error=on_error):
        for frame in decode_packet(stream, packet, on_error=on_error):
            if frame.width > 0 and frame.height > 0 and frame.width * frame.height <= MAX_PIXELS:
                yield frame


def frame_time(frame: VideoFrame, stream: VideoStream) -> float | None:
    """Return the presentation time of a frame in seconds, where the file has one.

    ``frame.time`` will not do: it is nan for the frames that the decoder hands over at the end.
    """
    return None if frame.pts is None or not stream.time_base else float(frame.pts * stream.time_base)


def reason(error: BaseException) -> str:
    """Return a decoder's error in a few words, without the file name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
