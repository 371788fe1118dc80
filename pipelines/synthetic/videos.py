"""Generate tagged videos with true boxes: the data of ``tcam demo`` and of the tests.

Each video shows one object that moves, grows and turns over a panning background. Only a small patterned mark
identifies its class. The body around it has one of a few plain colours that classes share, so a classifier looks at the
mark and the boxes of its CAM are too small. The body is nearly of one colour, so colour edges and time can grow the map
to the whole object. Video n of every class has the same background and the same distractors.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.synthetic.scene import render_video
from pipelines.synthetic.shapes import CLASSES, ObjectClass
from tcam.errors import DataError
from tcam.types import SPLITS, Box, Size
from tcam.video.writer import VideoWriter

_FPS: Final = 24


def write_synthetic_videos(
    root: Path,
    *,
    classes: int = 4,
    videos_per_class: tuple[int, int, int] = (10, 3, 4),
    frames: int = 28,
    size: Size = (120, 160),
    box_every: int = 1,
    seed: int = 0,
) -> None:
    """Write a folder of tagged videos: ``<class>/<class>-NN.mp4``, ``clips.csv`` (tags, splits), ``boxes.csv`` (truth).

    The folder appears complete or not at all. The same arguments give the same pictures, whatever else is generated.

    Args:
        root: must not exist, or be an empty folder.
        classes: how many classes, 2 to 5.
        videos_per_class: number of train, val and test videos.
        frames: of each video.
        size: (height, width) in pixels, even, at least 32.
        box_every: interval of annotated frames; annotators leave most frames out too.
        seed: of all random numbers.

    Raises:
        ValueError: a count or a size out of range.
        DataError: ``root`` is not empty.
    """
    if not 2 <= classes <= len(CLASSES):
        raise ValueError(f"classes must be 2 to {len(CLASSES)}, got {classes}")
    if min(videos_per_class) < 0 or videos_per_class[0] < 1:
        raise ValueError(f"videos_per_class must be at least (1, 0, 0), got {videos_per_class}")
    if box_every < 1:
        raise ValueError(f"box_every must be 1 or more, got {box_every}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is not empty: synthetic videos expect a new folder; remove it or name another")
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        kinds = CLASSES[:classes]
        _write_folder(partial, kinds, videos_per_class, frames=frames, size=size, box_every=box_every, seed=seed)
        partial.chmod(0o755)
        if root.exists():
            root.rmdir()
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_folder(
    root: Path,
    kinds: Sequence[ObjectClass],
    counts: tuple[int, int, int],
    *,
    frames: int,
    size: Size,
    box_every: int,
    seed: int,
) -> None:
    splits = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    clips: list[tuple[str, str, str]] = []
    truth: list[tuple[str | int, ...]] = []
    for position, kind in enumerate(kinds):
        (root / kind.name).mkdir()
        for number, split in enumerate(splits):
            name = f"{kind.name}/{kind.name}-{number:02d}.mp4"
            # Seeded per video, so that one more video or class does not change the others.
            # The scenery's seed omits the class: video n of every class has the same one, so it cannot be a hint.
            scenery = np.random.default_rng((seed, number))
            generator = np.random.default_rng((seed, number, position + 1))
            video = render_video(kind, frames=frames, size=size, scenery=scenery, generator=generator)
            _encode(root / name, video.frames, size)
            clips.append((name, kind.name, split))
            truth.extend(_truth_rows(name, video.boxes, box_every))
    _write_table(root / "clips.csv", ("video", "class", "split"), clips)
    _write_table(root / "boxes.csv", ("video", "frame", "x0", "y0", "x1", "y1"), truth)


def _truth_rows(name: str, boxes: Sequence[Box | None], every: int) -> Iterator[tuple[str | int, ...]]:
    for frame, box in list(enumerate(boxes))[::every]:
        if box is not None:
            yield (name, frame, *(int(edge) for edge in box))


def _encode(path: Path, frames: NDArray[np.uint8], size: Size) -> None:
    with VideoWriter(path, size=size, fps=_FPS) as writer:
        for frame in frames.transpose(0, 3, 1, 2):  # a view: the writer wants this order in memory
            writer.write(frame)


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str | int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
