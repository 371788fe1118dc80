"""Boxes over time: which belong to one object, smoothing (1 euro filter), and no box where probably no object is.

The 1 euro filter (Casiez, Roussel and Vogel, CHI 2012) is exponential smoothing whose cutoff frequency grows with
speed: ``cutoff = min_cutoff_hz + speed_gain * |speed|``. A box at rest is smoothed most, a fast one follows at once.
With a gain of 0 it is exponential smoothing. Times may be uneven.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tcam.types import Box, FrameBox, Size

_SPEED_CUTOFF_HZ = 1.0
"""Of the smoothed speed itself, as in the paper."""


@dataclass(frozen=True, slots=True)
class OverTime:
    """Settings for following boxes over time.

    Attributes:
        min_cutoff_hz: cutoff of the smoothing at rest, in Hz; lower is steadier but later. None turns smoothing off.
        speed_gain: increase of the cutoff with speed, in Hz per (frame side per second); 0 is exponential smoothing.
        min_score: frames whose ``presence_of`` is below this have no box, 0..1.
        max_gap_s: after this time without a box, in seconds, the next box is another object.
    """

    min_cutoff_hz: float | None = None
    speed_gain: float = 4.0
    min_score: float = 0.0
    max_gap_s: float = 0.5

    def __post_init__(self) -> None:
        if self.min_cutoff_hz is not None and not self.min_cutoff_hz > 0:
            raise ValueError(f"min_cutoff_hz must be positive, got {self.min_cutoff_hz}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must be in 0..1, got {self.min_score}")
        if self.speed_gain < 0 or self.max_gap_s < 0:
            raise ValueError(f"expected speed_gain and max_gap_s >= 0, got {self.speed_gain} and {self.max_gap_s}")


def presence_of(class_score: float, map_peak: float) -> float:
    """Return the confidence that a frame holds an object of its class, 0..1: the lower of the two scores."""
    return min(class_score, map_peak)


class BoxFollower:
    """Follows the boxes of one stream; frames must come in order.

    Two boxes belong to the same object if they have the same class, touch each other, and the gap is short enough.
    """

    def __init__(self, settings: OverTime) -> None:
        self._settings = settings
        self._last: FrameBox | None = None  # before smoothing
        self._tracks = 0
        self._values: tuple[float, ...] = ()
        self._speeds: tuple[float, ...] = ()

    def __call__(self, found: FrameBox, size: Size) -> FrameBox:
        """Return the frame with its smoothed ``box``, the original one as ``raw_box``, and the object's ``track_id``.

        Args:
            found: the result of one frame, before smoothing.
            size: (height, width) of the frame; the box stays inside.
        """
        box = found.box
        if box is None or presence_of(found.class_score, found.map_peak) < self._settings.min_score:
            return replace(found, box=None, raw_box=box)
        step_s = self._step_s(box, found)
        if step_s is None:
            self._tracks += 1
        if self._settings.min_cutoff_hz is not None:
            box = self._smooth(box, step_s, size, self._settings.min_cutoff_hz)
        self._last = found
        return replace(found, box=box, raw_box=found.box, track_id=self._tracks)

    def _step_s(self, box: Box, found: FrameBox) -> float | None:
        """Return the time since the last box of the same object; None where this is another one."""
        last = self._last
        if last is None or last.box is None or found.label != last.label:
            return None
        step_s, before = found.time_s - last.time_s, last.box
        apart = max(box.x0, before.x0) > min(box.x1, before.x1) or max(box.y0, before.y0) > min(box.y1, before.y1)
        return None if apart or not 0 < step_s <= self._settings.max_gap_s else step_s

    def _smooth(self, box: Box, step_s: float | None, size: Size, min_cutoff_hz: float) -> Box:
        height, width = size
        # Centre and sides rather than edges, as shares of the frame: a moving box keeps its shape.
        seen = (
            (box.x0 + box.x1) / 2 / width,
            (box.y0 + box.y1) / 2 / height,
            (box.x1 - box.x0) / width,
            (box.y1 - box.y0) / height,
        )
        if step_s is None:
            self._values, self._speeds = seen, (0.0,) * len(seen)
        else:
            keep = _weight(_SPEED_CUTOFF_HZ, step_s)
            pairs = list(zip(seen, self._values, strict=True))
            self._speeds = tuple(
                speed + keep * ((new - old) / step_s - speed)
                for (new, old), speed in zip(pairs, self._speeds, strict=True)
            )
            self._values = tuple(
                old + _weight(min_cutoff_hz + self._settings.speed_gain * abs(speed), step_s) * (new - old)
                for (new, old), speed in zip(pairs, self._speeds, strict=True)
            )
        x, y, w, h = self._values
        return Box(
            max((x - w / 2) * width, 0.0),
            max((y - h / 2) * height, 0.0),
            min((x + w / 2) * width, float(width)),
            min((y + h / 2) * height, float(height)),
        )


class TagFollower:
    """Follows the boxes of a stream whose frames may have several tags: those of each tag, with numbers of their own.

    The boxes of a frame may come in any order.
    """

    def __init__(self, settings: OverTime) -> None:
        self._settings = settings
        self._by_tag: dict[int, BoxFollower] = {}
        self._numbers: dict[tuple[int, int], int] = {}

    def __call__(self, found: FrameBox, size: Size) -> FrameBox:
        """Return the box of one tag in the next frame with its smoothed ``box``; see ``BoxFollower``."""
        followed = self._by_tag.setdefault(found.label, BoxFollower(self._settings))(found, size)
        if followed.track_id is None:
            return followed
        number = self._numbers.setdefault((found.label, followed.track_id), len(self._numbers) + 1)
        return replace(followed, track_id=number)


def _weight(cutoff_hz: float, step_s: float) -> float:
    """Return the weight of a new value in exponential smoothing with this cutoff."""
    tau_s = 1 / (2 * math.pi * cutoff_hz)
    return 1 / (1 + tau_s / step_s)
