"""The box of the largest component of a map at one threshold, in one pass over its runs of pixels.

A run is a stretch of kept pixels in a row; each is joined to the runs of the row above that it touches (union-find).
``components_sweep.py``, which handles all thresholds at once, takes several times as long for one (decision 0015).
Compiled by numba at the first call (a few seconds, then cached on disk).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcam.boxes.components_sweep import Ints, Places, join
from tcam.compiled import compiled

Floats = NDArray[np.floating]

_WORD: Final = 8
_NONE, _ALL = np.uint64(0), np.uint64(0x0101010101010101)
"""Eight pixels of which none or all are kept. Most words are such, and are processed in one step."""


def largest_of_maps(maps: Floats, scale: float, least: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the box of the largest 8-connected component of every map, of the pixels that reach a level.

    Args:
        maps: ``[N, H, W]``.
        scale: a pixel's level is its value times this.
        least: the level that pixels of each map must reach, ``[N]``, a whole number.

    Returns:
        ``[N, 4]``, half-open x0, y0, x1, y1 in pixels; NaN where a map has no such pixel. Of equally large components
        the one whose first pixel comes first in reading order.
    """
    number, height, width = maps.shape
    kept = np.zeros(-(-width // _WORD) * _WORD, np.uint8)
    boxes = np.full((number, 4), np.nan)
    most = height * len(kept) // 2
    spans, root, about = np.empty((most, 2), np.int32), np.empty(most, np.uint32), np.empty((most, 6), np.int32)
    factor, lowest = maps.dtype.type(scale), least.astype(maps.dtype)
    for one, level, box in zip(np.ascontiguousarray(maps), lowest, boxes, strict=True):
        _largest(one, factor, level, kept, kept.view(np.uint64), spans, root, about, box)
    return boxes


@compiled
def _largest(
    pixels: Floats,
    scale: np.floating,
    least: np.floating,
    kept: NDArray[np.uint8],
    words: NDArray[np.uint64],
    spans: Ints,
    root: Places,
    about: Ints,
    box: NDArray[np.float64],
) -> None:
    """Write the box of the largest component.

    ``kept`` holds which pixels of a row reach the level, and is ``words`` too; ``spans`` where a run begins and ends,
    ``root`` another run of its component or itself, ``about`` what is known of the component of a root: left, top,
    right, bottom, first run and pixels.
    """
    first, begin = 0, 0  # of the row above, of this row
    for y in range(len(pixels)):
        row = pixels[y]
        for x in range(len(row)):
            kept[x] = row[x] * scale >= least
        end = _add_runs(kept, words, spans, begin)
        above = first
        for run in range(begin, end):
            left, right = spans[run]
            root[run] = run
            one = about[run]
            one[0], one[1], one[2], one[3], one[4], one[5] = left, y, right, y + 1, run, right - left
            while above < begin and spans[above, 1] < left:
                above += 1
            touched = above
            while touched < begin and spans[touched, 0] <= right:
                join(root, about, touched, run)
                touched += 1
        first, begin = begin, end
    best = -1
    for run in range(begin):
        if root[run] == run and (
            best < 0
            or about[run, 5] > about[best, 5]
            or (about[run, 5] == about[best, 5] and about[run, 4] < about[best, 4])
        ):
            best = run
    if best >= 0:
        box[0], box[1], box[2], box[3] = about[best, 0], about[best, 1], about[best, 2], about[best, 3]


@compiled
def _add_runs(row: NDArray[np.uint8], words: NDArray[np.uint64], spans: Ints, count: int) -> int:
    """Append the runs of a row to the first ``count`` runs; return the new count."""
    inside = False
    for i in range(len(words)):
        if words[i] == (_ALL if inside else _NONE):
            continue
        for x in range(_WORD * i, _WORD * i + _WORD):
            if (row[x] != 0) != inside:
                inside = not inside
                spans[count, 0 if inside else 1] = x
                count += 0 if inside else 1
    if inside:
        spans[count, 1] = len(row)
        count += 1
    return count
