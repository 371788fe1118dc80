"""Draw a prediction over a frame: the map as a heat map, its box, the ground-truth boxes, a caption."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tcam.types import Box
from tcam.video.pixels import Pixels

FOUND_COLOUR: Final = (0, 229, 255)
"""Colour of the predicted box: cyan, which the heat map never uses."""
TRUTH_COLOUR: Final = (255, 255, 255)
"""Colour of ground-truth boxes; they are dashed too, so that they differ in more than colour."""
_OUTLINE: Final = (16, 16, 20)
_HEAT: Final = (
    (0.0, (40, 10, 90)),
    (0.35, (150, 20, 120)),
    (0.65, (240, 70, 40)),
    (0.85, (255, 170, 20)),
    (1.0, (255, 250, 160)),
)
HEAT_STRENGTH: Final = 0.62
"""Opacity of the heat map where the map is 1; it falls to 0 with the map, so that the background stays clear."""


def draw_overlay(
    frame: Pixels,
    box: Box | None,
    *,
    map: NDArray[np.floating] | None = None,  # noqa: A002 (the field's word)
    truth: Sequence[Box] = (),
    others: Sequence[Box] = (),
    caption: str = "",
) -> Pixels:
    """Draw over a copy of a frame.

    Args:
        frame: uint8 ``[3, H, W]``, RGB.
        box: the predicted box, in pixels of the frame, or None.
        map: ``[h, w]`` in 0..1, of any size; it is stretched over the frame.
        truth: the ground-truth boxes, drawn dashed.
        others: the predicted boxes of other tags.
        caption: one line in the upper left corner.

    Returns:
        uint8 ``[3, H, W]``.

    Raises:
        ValueError: another shape or type.
    """
    if frame.ndim != 3 or frame.shape[0] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame must be uint8 [3, H, W], got {frame.dtype} {list(frame.shape)}")
    if map is not None and map.ndim != 2:
        raise ValueError(f"map must be [h, w], got {list(map.shape)}")
    picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    if map is not None:
        _blend_heat(picture, map)
    pen, width = ImageDraw.Draw(picture), line_width(picture.height, picture.width)
    for true_box in truth:
        _draw_box(pen, true_box, TRUTH_COLOUR, width, dash=5 * width)
    for found in (*others, *(() if box is None else (box,))):
        _draw_box(pen, found, FOUND_COLOUR, width, dash=None)
    if caption:
        _draw_caption(pen, caption, picture.size)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def line_width(height: int, width: int) -> int:
    """Return the line width of boxes, in pixels: 2 at 240 rows, 3 at 480, 6 at 1080."""
    return max(1, round(0.005 * min(height, width) + 0.6))


def encode_heat(heat: NDArray[np.floating]) -> bytes:
    """Encode a map ``[h, w]``, in 0..1, as a PNG heat map to show over its frame.

    It is opaque where the map is 1; shown with opacity ``HEAT_STRENGTH``, it equals what ``draw_overlay`` draws.
    """
    picture = _levels(heat)
    colours, opacity = _heat_table(1.0)
    picture.putpalette(colours)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=bytes(opacity), compress_level=1)
    return file.getvalue()


def _blend_heat(picture: Image.Image, heat: NDArray[np.floating]) -> None:
    # Pillow is several times faster here than float arrays, and overlay videos wait for this.
    stretched = _levels(heat).resize(picture.size, Image.Resampling.BILINEAR)
    colours, opacity = _heat_table(HEAT_STRENGTH)
    mask = stretched.point(opacity)
    stretched.putpalette(colours)
    picture.paste(stretched.convert("RGB"), mask=mask)


def _levels(heat: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray((heat.astype(np.float32).clip(0, 1) * 255).astype(np.uint8))


@functools.cache
def _heat_table(strength: float) -> tuple[list[int], list[int]]:
    """Return RGB (768 values) and opacity (256 values) of the levels of a map, all 0..255."""
    level = np.linspace(0, 1, 256)
    stops = [stop for stop, _ in _HEAT]
    channels = [np.interp(level, stops, [colour[c] for _, colour in _HEAT]) for c in range(3)]
    colours = np.stack(channels, axis=1).round().astype(int).ravel().tolist()
    return colours, (255 * strength * level**0.8).round().astype(int).tolist()


def _draw_box(
    pen: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], width: int, *, dash: int | None
) -> None:
    """Draw a rectangle with its line inside the box, over a dark rim that is visible on any background."""
    x0, y0, x1, y1 = round(box.x0), round(box.y0), round(box.x1) - 1, round(box.y1) - 1
    x1, y1 = max(x0, x1), max(y0, y1)
    rim = max(1, width // 2)
    if dash is None:
        pen.rectangle((x0 - rim, y0 - rim, x1 + rim, y1 + rim), outline=_OUTLINE, width=width + 2 * rim)
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=width)
        return
    for grow, shade in ((rim, _OUTLINE), (0, colour)):
        for start in range(x0, x1 + 1, 2 * dash):
            stop = min(start + dash - 1, x1)
            for top in (y0, max(y0, y1 - width + 1)):
                pen.rectangle((start - grow, top - grow, stop + grow, top + width - 1 + grow), fill=shade)
        for start in range(y0, y1 + 1, 2 * dash):
            stop = min(start + dash - 1, y1)
            for left in (x0, max(x0, x1 - width + 1)):
                pen.rectangle((left - grow, start - grow, left + width - 1 + grow, stop + grow), fill=shade)


def _draw_caption(pen: ImageDraw.ImageDraw, caption: str, size: tuple[int, int]) -> None:
    """Write one line on a dark plate, shortened if the frame is too narrow for it."""
    font = _font(max(11, round(0.055 * min(size))))
    margin = max(2, round(font.size * 0.3))
    text = caption.splitlines()[0]
    while len(text) > 1 and font.getlength(text) > size[0] - 4 * margin:
        text = text[:-2] + "…"
    left, top, right, bottom = font.getbbox(text)
    plate = (0, 0, round(right - left) + 2 * margin, round(bottom - top) + 2 * margin)
    pen.rectangle(plate, fill=_OUTLINE)
    pen.text((margin - left, margin - top), text, font=font, fill=(255, 255, 255))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType has one tiny bitmap font
        raise ValueError("captions need a Pillow built with FreeType")
    return font
