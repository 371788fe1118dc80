"""Draw one synthetic video: a panning background, distractors, and one object of a class with its true boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipelines.synthetic.shapes import BODY_COLOURS, DISTRACTORS, Array, ObjectClass
from tcam.types import Box, Size

_VISIBLE: Final = 0.25
"""Smallest visible share of an object that has a true box."""
_RAMP: Final = 5
"""Frames an object takes to slide in or out of the frame."""


@dataclass(frozen=True)
class SyntheticVideo:
    """One rendered video: uint8 ``[T, H, W, 3]`` RGB, and the true box of each frame, None if it is out of view."""

    frames: NDArray[np.uint8]
    boxes: tuple[Box | None, ...]


@dataclass(frozen=True)
class _Pose:
    """Where an object is in each of T frames: centre and half length in pixels, angle in radians, facing +1 or -1."""

    x: Array
    y: Array
    half_length: Array
    angle: Array
    facing: int


def render_video(
    kind: ObjectClass, *, frames: int, size: Size, scenery: Generator, generator: Generator
) -> SyntheticVideo:
    """Draw one video of a class.

    Args:
        kind: the class.
        frames: how many, at least 1.
        size: (height, width) in pixels, even (for yuv420p), at least 32.
        scenery: random generator of background and distractors.
        generator: random generator of the object and the noise.

    Raises:
        ValueError: a count or a size out of range.
    """
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    if min(size) < 32 or size[0] % 2 or size[1] % 2:
        raise ValueError(f"size must be even and at least 32 x 32, got {size[0]} x {size[1]}")
    muted = _muted_colours(scenery)
    scene = _background(frames, size, muted, scenery)
    for _ in range(scenery.integers(1, 3)):
        _draw_distractor(scene, scenery)
    boxes = _draw_object(scene, kind, _body_colour(kind, muted, generator), generator)
    phase = generator.uniform(0, 2 * np.pi)
    scene *= (1 + 0.04 * np.sin(np.arange(frames) / 5 + phase)).astype(np.float32)[:, None, None, None]
    scene += generator.normal(0, 2, scene.shape).astype(np.float32)
    return SyntheticVideo(np.clip(scene, 0, 255).astype(np.uint8), boxes)


def _background(frames: int, size: Size, muted: Array, generator: Generator) -> Array:
    """Draw a panning texture of two colours: ``[T, H, W, 3]``."""
    first, second = muted
    coarse, fine = _noise(size, 1.6, generator), _noise(size, 0.7, generator)
    blend = np.clip(0.5 + 0.45 * coarse, 0, 1)[..., None]
    canvas = (first * blend + second * (1 - blend) + 9 * fine[..., None]).astype(np.float32)
    direction, speed = generator.uniform(0, 2 * np.pi), generator.uniform(0.4, 2)
    shift = np.arange(frames)[:, None] * speed * np.array([np.sin(direction), np.cos(direction)])
    return np.stack([_roll(_roll(canvas, down, axis=0), right, axis=1) for down, right in shift])


def _roll(canvas: Array, pixels: float, *, axis: int) -> Array:
    """Move a seamless picture by a fraction of pixels (linear between the two whole ones)."""
    whole, part = int(pixels // 1), np.float32(pixels % 1)
    near = np.roll(canvas, whole, axis)
    return np.asarray(near + part * (np.roll(near, 1, axis) - near), np.float32)


def _muted_colours(generator: Generator) -> Array:
    """Draw two colours of low saturation: ``[2, 3]``."""
    return (generator.uniform(50, 215, (2, 1)) + generator.uniform(-32, 32, (2, 3))).astype(np.float32)


def _body_colour(kind: ObjectClass, muted: Array, generator: Generator) -> Array:
    """Draw one of the class's body colours, at least 70 levels away from the background's, or else the farthest."""
    colours = np.asarray([BODY_COLOURS[place] for place in generator.permutation(kind.body_colours)], np.float32)
    distance = np.linalg.norm(colours[:, None] - muted, axis=2).min(axis=1)
    chosen = colours[int(np.argmax(np.minimum(distance, 70)))]  # the first that is far enough
    return np.asarray(chosen + generator.normal(0, 6, 3), np.float32)


def _noise(size: Size, exponent: float, generator: Generator) -> Array:
    """Draw seamless noise of unit variance whose amplitude falls with frequency: ``[H, W]``."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None] * size[0], np.fft.rfftfreq(size[1]) * size[1])
    amplitude = np.where(frequency > 0, np.maximum(frequency, 1) ** -exponent, 0)
    values = np.fft.irfft2(np.fft.rfft2(generator.normal(size=size)) * amplitude, s=size)
    return np.asarray(values / values.std(), np.float32)


def _draw_distractor(scene: Array, generator: Generator) -> None:
    """Paint an untagged object behind the tagged one; every class has the same ones."""
    frames, height, width = scene.shape[:3]
    outline, colours = DISTRACTORS[generator.integers(len(DISTRACTORS))]
    half_length = np.full(frames, width * generator.uniform(0.04, 0.08), np.float32)
    path = _path(frames, (height, width), generator.uniform(0, 1.2), generator)
    pose = _Pose(path[0], path[1], half_length, np.full(frames, generator.uniform(0, np.pi), np.float32), 1)
    u, v = _local(pose, (height, width), 1.0)
    colour = np.asarray(colours[generator.integers(len(colours))], np.float32)
    paint = colour + (25 * np.sign(np.sin(5 * u)))[..., None]
    _paint(scene, _cover(outline(u, v), half_length), paint)


def _draw_object(scene: Array, kind: ObjectClass, body: Array, generator: Generator) -> tuple[Box | None, ...]:
    """Paint the tagged object and return its true boxes."""
    frames, height, width = scene.shape[:3]
    pose = _object_pose(frames, (height, width), generator)
    half_height = pose.half_length / kind.aspect
    u, v = _local(pose, (height, width), kind.aspect)
    cover = _cover(kind.outline(u, v), half_height)
    ripple = 5 * np.sin(kind.ripple * u + 2 * v) - 14 * v
    paint = body + ripple[..., None]
    # The mark sits towards one end of the body and nods, so a CAM that covers it is neither centred nor constant.
    nod = 0.1 * np.sin(np.arange(frames) * generator.uniform(0.4, 0.8)).astype(np.float32)
    mark_u = (kind.mark_at[0] + nod)[:, None, None]
    across = half_height[:, None, None]
    du, dv = (u - mark_u) * across * kind.aspect, (v - kind.mark_at[1]) * across
    radius = 0.58 * across
    inked = (np.hypot(du, dv) < radius) & kind.pattern(du / radius, dv / radius)
    paint = np.where(inked[..., None], np.asarray(kind.ink, np.float32), paint)
    _paint(scene, cover, paint)
    whole = kind.area() * pose.half_length * half_height
    return _boxes(cover > 0.5, whole)


def _object_pose(frames: int, size: Size, generator: Generator) -> _Pose:
    growth = np.linspace(1, generator.uniform(0.75, 1.35), frames)
    half_length = size[1] * generator.uniform(0.2, 0.28) * growth / np.sqrt(growth.max())
    speed = generator.uniform(1, 3) * size[1] / 160
    # Of three paths, take the one farthest from the middle, so that a box in the centre is not a good guess.
    paths = [_path(frames, size, speed, generator) for _ in range(3)]
    x, y = max(paths, key=lambda path: float(np.hypot(path[0] / size[1] - 0.5, path[1] / size[0] - 0.5).mean()))
    if frames >= 4 * _RAMP and generator.random() < 0.25:
        x = _leave(x, half_length, size[1], generator)
    turn = generator.uniform(-0.3, 0.3) + 0.12 * np.sin(np.arange(frames) * 0.25 + generator.uniform(0, 6))
    facing = 1 if generator.random() < 0.5 else -1
    return _Pose(x, y, half_length.astype(np.float32), turn.astype(np.float32), facing)


def _path(frames: int, size: Size, speed: float, generator: Generator) -> tuple[Array, Array]:
    """Draw a smooth path that bounces inside the frame: x and y of T frames, in pixels."""
    direction = generator.uniform(0, 2 * np.pi)
    step = np.arange(frames)
    ways = []
    for extent, cosine in ((size[1], np.cos(direction)), (size[0], np.sin(direction))):
        low, high = 0.2 * extent, 0.8 * extent
        straight = generator.uniform(0, high - low) + step * speed * cosine
        folded = np.abs((straight + (high - low)) % (2 * (high - low)) - (high - low))
        wobble = 0.015 * extent * np.sin(step * generator.uniform(0.2, 0.4))
        ways.append((low + folded + wobble).astype(np.float32))
    return ways[0], ways[1]


def _leave(x: Array, half_length: NDArray[np.float64], width: int, generator: Generator) -> Array:
    """Keep the object out of view for a few frames at the start or the end, beyond the nearer side."""
    step = np.arange(len(x))
    towards_end = generator.random() < 0.5
    step = step[::-1] if towards_end else step
    away = np.clip((generator.integers(2, 5) + _RAMP - step) / _RAMP, 0, 1)
    nearer_left = float(x.mean()) < width / 2
    outside = -1.3 * half_length if nearer_left else width + 1.3 * half_length
    return np.asarray(x + away * (outside - x), np.float32)


def _local(pose: _Pose, size: Size, aspect: float) -> tuple[Array, Array]:
    """Return pixel positions on the object: u along it, v across it, both -1..1 at its ends: ``[T, H, W]`` each."""
    dy = np.arange(size[0], dtype=np.float32)[:, None] + 0.5 - pose.y[:, None, None]
    dx = np.arange(size[1], dtype=np.float32)[None, :] + 0.5 - pose.x[:, None, None]
    cosine, sine = np.cos(pose.angle)[:, None, None], np.sin(pose.angle)[:, None, None]
    half = pose.half_length[:, None, None]
    u = pose.facing * (dx * cosine + dy * sine) / half
    v = (dy * cosine - dx * sine) * aspect / half
    return np.asarray(u, np.float32), np.asarray(v, np.float32)


def _cover(level: Array, half_height: Array) -> Array:
    """Convert an outline level (1 on the edge, less inside) to the covered share of each pixel, 0..1."""
    return np.asarray(np.clip(0.5 + (1 - level) * half_height[:, None, None], 0, 1), np.float32)


def _paint(scene: Array, cover: Array, paint: Array) -> None:
    scene += cover[..., None] * (paint - scene)


def _boxes(visible: NDArray[np.bool_], whole: Array) -> tuple[Box | None, ...]:
    """Return the tight box of each mask ``[T, H, W]``; None if less than a quarter of ``whole`` pixels is inside."""
    boxes: list[Box | None] = []
    for mask, area in zip(visible, whole, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        seen = mask.sum() >= max(_VISIBLE * area, 1)
        boxes.append(Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if seen else None)
    return tuple(boxes)
