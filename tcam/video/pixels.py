"""Convert decoded frames and pictures to uint8 arrays in display orientation, at a given size."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from tcam.errors import VideoError
from tcam.types import Pixels as Pixels
from tcam.types import Size
from tcam.video.pictures.image import read_image as read_image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av.filter import Graph
    from av.filter.context import FilterContext
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame

FOLDER_FPS: Final = 25.0
"""Frame folders do not say how fast they were filmed."""
_DISPLAY_MATRIX: Final = "DISPLAYMATRIX"
_SIDE_KINDS: Final = 64
"""FFmpeg's numbers of side data lie below (32 of them in FFmpeg 8)."""
_MAX_GRAPHS: Final = 4
"""A stream that changes its size at every frame must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """The transform from stored to displayed pixels: axes swapped first, then mirrored left-right and top-bottom."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of_frame(cls, frame: VideoFrame) -> Orientation:
        """Read the display matrix of a frame, rounded to quarter turns; the identity where there is none."""
        data = next((bytes(side) for side in _side_data(frame) if side.type.name == _DISPLAY_MATRIX), b"")
        if len(data) < 36:
            return cls()
        a, b, _, c, d = struct.unpack("=5i", data[:20])
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def rotation(self) -> int:
        """The clockwise turn in degrees; of a mirrored picture, the turn that is left after the mirroring."""
        if self.transpose:
            return 90 if self.flip_x or not self.flip_y else 270
        return 180 if self.flip_x and self.flip_y else 0

    def size(self, stored: Size) -> Size:
        """Exchange height and width where the axes are swapped (its own inverse)."""
        return (stored[1], stored[0]) if self.transpose else stored

    def apply(self, pixels: Pixels) -> Pixels:
        """Turn ``[..., h, w]`` pixels to display orientation."""
        if self.transpose:
            pixels = pixels.swapaxes(-1, -2)
        return np.flip(pixels, tuple(axis for axis, flip in ((-1, self.flip_x), (-2, self.flip_y)) if flip))


def _side_data(frame: VideoFrame) -> Iterable[SideData]:
    """Return the side data of a frame, without the kinds that PyAV does not know."""
    import av

    with suppress(ValueError):  # for a single one of an unknown kind (Exif, views of HEVC), which hides the others
        return cast("Iterable[SideData]", frame.side_data)
    with suppress(ValueError, OSError, av.error.FFmpegError):
        return cast("Iterable[SideData]", _without_unknown(frame).side_data)
    return ()


def _without_unknown(frame: VideoFrame) -> VideoFrame:
    from av.filter import Graph
    from av.sidedata.sidedata import Type

    known: set[object] = {kind.value for kind in Type}
    graph = Graph()
    graph.threads = 1
    drops = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in range(_SIDE_KINDS) if kind not in known]
    graph.link_nodes(_add_source(graph, frame), *drops, graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    return graph.vpull()


class FrameScaler:
    """Turn decoded frames to uint8 ``[3, h, w]`` RGB of one size.

    It keeps one swscale context per size (building one per frame costs as much as the scaling) and so belongs to one
    reader. Scaling goes through FFmpeg's scale filter and not through PyAV's reformatter: the filter knows where the
    chroma samples lie, and its pixels equal decord's exactly.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._convert = VideoReformatter()
        self._graphs: dict[tuple[int, int, str, int, int, Size], Graph] = {}

    def __reduce__(self) -> tuple[type[FrameScaler], tuple[()]]:
        return FrameScaler, ()  # a copy builds contexts of its own

    def __call__(self, frame: VideoFrame, size: Size, orientation: Orientation) -> Pixels:
        """Scale a frame (bilinear) to ``size``, (height, width) in display orientation.

        Raises:
            VideoError: the pixel format cannot be converted.
        """
        import av

        stored = orientation.size(size)
        try:
            scaled = self._scale(frame, stored)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise VideoError(f"a frame of format {frame.format.name} cannot be converted to RGB ({error})") from error
        plane = scaled.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(stored[0], plane.line_size)
        pixels = rows[:, : 3 * stored[1]].reshape(stored[0], stored[1], 3)
        # A copy, as the decoder's own memory will be used again; each pixel stays together, as networks want it.
        return orientation.apply(pixels.transpose(2, 0, 1)).copy(order="K")

    def resize(self, pixels: Pixels, size: Size) -> Pixels:
        """Scale RGB pixels, uint8 ``[H, W, 3]``, as decoded frames are scaled: uint8 ``[3, h, w]`` of ``size``."""
        from av import VideoFrame

        return self(VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"), size, Orientation())

    def _scale(self, frame: VideoFrame, stored: Size) -> VideoFrame:
        if stored == (frame.height, frame.width):
            return self._convert.reformat(frame, format="rgb24")
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, stored)
        if key not in self._graphs:
            if len(self._graphs) >= _MAX_GRAPHS:
                self._graphs.clear()
            self._graphs[key] = _build_graph(frame, stored)
        graph = self._graphs[key]
        graph.vpush(frame)
        return graph.vpull()


def _build_graph(frame: VideoFrame, stored: Size) -> Graph:
    import av.filter

    graph = av.filter.Graph()
    graph.threads = 1
    scale = graph.add("scale", f"{stored[1]}:{stored[0]}:flags=bilinear")
    graph.link_nodes(_add_source(graph, frame), scale, graph.add("format", "rgb24"), graph.add("buffersink"))
    graph.configure()
    return graph


def _add_source(graph: Graph, frame: VideoFrame) -> FilterContext:
    return graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
