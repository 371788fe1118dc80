"""Outlines, patterns and colours of the synthetic objects, as functions of the position on the object.

Outlines take u (along the object) and v (across it, downwards), both -1..1 at the object's ends, and return a level:
below 1 inside, 1 on the edge. Patterns take the same relative to a mark of radius 1 and return where its ink is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Outline = Callable[[Array, Array], Array]
Pattern = Callable[[Array, Array], NDArray[np.bool_]]
Colour = tuple[int, int, int]

BODY_COLOURS: Final[tuple[Colour, ...]] = (
    (25, 125, 130),  # teal
    (120, 135, 30),  # olive
    (60, 85, 175),  # blue
    (130, 60, 140),  # plum
    (150, 90, 40),  # brown
)


@dataclass(frozen=True)
class ObjectClass:
    """How the objects of a class look.

    Attributes:
        name: of the class.
        outline: of the body.
        aspect: length divided by height.
        body_colours: indices into ``BODY_COLOURS``; classes share them, so a colour is only a weak hint.
        ripple: frequency of a faint brightness wave along the body, in radians per half length.
        pattern: of the mark; only this identifies the class.
        ink: colour of the pattern; between its lines the body shows, so mark and body share a colour.
        mark_at: (u, v) of the mark's centre.
    """

    name: str
    outline: Outline
    aspect: float
    body_colours: tuple[int, int, int]
    ripple: float
    pattern: Pattern
    ink: Colour
    mark_at: tuple[float, float]

    def area(self) -> float:
        """Return the object's area in units of half length times half height."""
        u, v = np.meshgrid(*[np.linspace(-1, 1, 96, dtype=np.float32)] * 2)
        return 4 * float((self.outline(u, v) < 1).mean())


def _disc(u: Array, v: Array) -> Array:
    return np.asarray(np.hypot(u, v), np.float32)


def _rectangle(u: Array, v: Array, *, left: float, right: float, top: float, bottom: float) -> Array:
    across = np.abs(v - (top + bottom) / 2) / ((bottom - top) / 2)
    along = np.abs(u - (left + right) / 2) / ((right - left) / 2)
    return np.asarray(np.maximum(along, across), np.float32)


def _square(u: Array, v: Array) -> Array:
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) / 0.8, np.float32)


def _cross(u: Array, v: Array) -> Array:
    longer, shorter = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.asarray(np.maximum(longer, shorter / 0.3), np.float32)


def _ring(u: Array, v: Array) -> Array:
    return np.asarray(np.abs(np.hypot(u, v) - 0.7) / 0.3, np.float32)


def _fish(u: Array, v: Array) -> Array:
    body = np.hypot((u - 0.2) / 0.8, v / 0.85)
    tail = np.maximum(np.abs(v) / np.maximum(-0.5 - 1.0 * (u + 0.15), 0.02) / 1.6, 2 * np.abs(u + 0.7) / 0.6)
    return np.asarray(np.minimum(body, tail), np.float32)


def _beetle(u: Array, v: Array) -> Array:
    body = (np.abs(u) ** 2.5 + np.abs(v / 0.78) ** 2.5) ** 0.4
    legs = np.minimum.reduce([np.maximum(np.abs(u - place) / 0.09, np.abs(v)) for place in (-0.5, 0.0, 0.5)])
    return np.asarray(np.minimum(body, legs), np.float32)


def _kite(u: Array, v: Array) -> Array:
    slope = np.where(u > 0.2, (u - 0.2) / 0.8, (0.2 - u) / 1.2)
    return np.asarray(slope + np.abs(v), np.float32)


def _snail(u: Array, v: Array) -> Array:
    shell = np.hypot((u + 0.15) / 0.72, (v + 0.15) / 0.85)
    foot = _rectangle(u, v, left=-1, right=1, top=0.5, bottom=1)
    head = _rectangle(u, v, left=0.72, right=1, top=-0.3, bottom=1)
    return np.asarray(np.minimum.reduce([shell, foot, head]), np.float32)


def _truck(u: Array, v: Array) -> Array:
    load = _rectangle(u, v, left=-1, right=0.5, top=-1, bottom=0.7)
    cabin = _rectangle(u, v, left=0.4, right=1, top=-0.4, bottom=0.7)
    wheels = [np.hypot((u - place) / 0.2, (v - 0.68) / 0.32) for place in (-0.6, 0.6)]
    return np.asarray(np.minimum.reduce([load, cabin, *wheels]), np.float32)


def _stripes(u: Array, _: Array) -> NDArray[np.bool_]:
    return np.asarray(np.sin(7 * u) > -0.2, np.bool_)


def _dots(u: Array, v: Array) -> NDArray[np.bool_]:
    return np.asarray(np.sin(6 * u) * np.sin(6 * v) > -0.1, np.bool_)


def _checks(u: Array, v: Array) -> NDArray[np.bool_]:
    return np.asarray(np.sin(4.5 * u) * np.sin(4.5 * v) > 0, np.bool_)


def _rings(u: Array, v: Array) -> NDArray[np.bool_]:
    return np.asarray(np.cos(8 * np.hypot(u, v)) > -0.2, np.bool_)


def _slants(u: Array, v: Array) -> NDArray[np.bool_]:
    return np.asarray(np.sin(5 * (u + v)) > -0.2, np.bool_)


CLASSES: Final[tuple[ObjectClass, ...]] = (
    ObjectClass("fish", _fish, 2.0, (0, 1, 2), 9, _stripes, (255, 130, 20), (0.62, 0.0)),
    ObjectClass("beetle", _beetle, 1.6, (1, 2, 3), 4, _dots, (225, 25, 35), (-0.5, 0.0)),
    ObjectClass("kite", _kite, 1.8, (2, 3, 4), 0, _checks, (250, 235, 40), (0.5, 0.0)),
    ObjectClass("snail", _snail, 1.7, (3, 4, 0), 6, _rings, (250, 90, 210), (-0.4, -0.2)),
    ObjectClass("truck", _truck, 2.0, (4, 0, 1), 12, _slants, (90, 240, 245), (-0.6, -0.3)),
)

DISTRACTORS: Final[tuple[tuple[Outline, tuple[Colour, ...]], ...]] = (
    (_disc, ((40, 40, 45), (225, 225, 220), (95, 165, 80))),
    (_square, ((40, 40, 45), (165, 165, 170), (165, 75, 70))),
    (_cross, ((225, 225, 220), (95, 165, 80), (165, 75, 70))),
    (_ring, ((40, 40, 45), (225, 225, 220), (165, 165, 170))),
)
