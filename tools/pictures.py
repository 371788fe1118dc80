"""The picture on top of the README: frame, CAM, localizer map and box side by side, a row for each frame.

    .venv/bin/python tools/pictures.py RUN --source VIDEO --frames 20 90 --class animal -o docs/images/hero.webp

Maps are drawn as heat over the frame. The box is that of the localizer map at the run's own map threshold, as `tcam
predict` writes it. Gaps are transparent, so that the picture suits a light and a dark page. docs/images/README.md says
of which run and video the present picture is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.inference.frames import FramePrediction, predict_video
from pipelines.inference.overlay import FOUND_COLOUR, draw_overlay
from pipelines.models.run import Run, load_localizers, load_run, main_localizer
from pipelines.models.thresholds import read_thresholds
from tcam.files import replacing
from tcam.types import Box, Pixels
from tcam.video.reader import stream_frames

GAP = 8
"""Pixels between two panels."""
DARK = (16, 16, 20)
MOST_BYTES = 400_000
"""Of a tracked file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--source", type=Path, required=True, help="a video or a picture")
    parser.add_argument("--frames", type=int, nargs="+", default=[0], help="a row for each; frames count from 0")
    parser.add_argument("--class", dest="class_name", help="the class to look for; left out: the most probable one")
    parser.add_argument("--width", type=int, default=480, help="pixels of a panel")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .webp or .png file")
    options = parser.parse_args()

    run = load_run(options.run, device="cpu")
    label = None if options.class_name is None else run.index.class_names.index(options.class_name)
    found = look(run, options.source, options.frames, label)
    picture = tile([list(draw_panels(*row, width=options.width)) for row in found])
    with replacing(options.output) as temporary:
        picture.save(temporary, options.output.suffix[1:].upper(), quality=80, method=6)
        size = temporary.stat().st_size
        if size > MOST_BYTES:
            raise SystemExit(
                f"{size:,} bytes, expected at most {MOST_BYTES:,}: take fewer --frames or a smaller --width"
            )
    print(f"{options.output}: {picture.width} x {picture.height} pixels, {size:,} bytes")


def look(
    run: Run, source: Path, frames: Sequence[int], label: int | None
) -> Iterator[tuple[FramePrediction, FramePrediction]]:
    """Return what the CAM and the localizer of a run found in some frames of a video, in order."""
    localizers, main_name = load_localizers(run), main_localizer(run)
    thresholds, _ = read_thresholds(run.folder / "evaluation" / "thresholds.json")
    found = (
        predict_video(
            localizers[name],
            source.name,
            stream_frames(source, size=run.input_size, keep_original=True, only=frames),
            threshold=thresholds[name],
            class_names=run.index.class_names,
            label=label,
        )
        for name in (run.config.cam.method, main_name)
    )
    return zip(*found, strict=True)


def draw_panels(cam: FramePrediction, localizer: FramePrediction, *, width: int) -> Iterator[Image.Image]:
    """Return the panels of one frame."""
    frame, box = localizer.original, localizer.box
    assert frame is not None
    yield draw_panel(frame, "frame", width=width)
    yield draw_panel(draw_overlay(frame, None, map=cam.map), "CAM", width=width)
    yield draw_panel(draw_overlay(frame, None, map=localizer.map), "localizer map", width=width)
    yield draw_panel(frame, f"box: {box.class_name}", box.box, width=width)


def draw_panel(pixels: Pixels, label: str, box: Box | None = None, *, width: int) -> Image.Image:
    """Scale uint8 ``[3, H, W]`` to a width, then draw a box and a label that are legible in a small picture."""
    scale, unit = width / pixels.shape[2], max(1, width // 120)
    panel = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    panel = panel.resize((width, round(scale * pixels.shape[1])), Image.Resampling.LANCZOS)
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(7 * unit)
    if box is not None:
        x0, y0, x1, y1 = (scale * side for side in box)
        rim = unit // 2
        pen.rectangle((x0 - rim, y0 - rim, x1 + rim, y1 + rim), outline=DARK, width=unit + 2 * rim)
        pen.rectangle((x0, y0, x1, y1), outline=FOUND_COLOUR, width=unit)
    pen.rectangle((0, 0, font.getlength(label) + 4 * unit, 10 * unit), fill=DARK)
    pen.text((2 * unit, 5 * unit), label, font=font, fill="white", anchor="lm")
    return panel


def tile(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Put rows of panels of one size together, with transparent gaps."""
    width, height = rows[0][0].size
    picture = Image.new("RGBA", (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP))
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            picture.paste(panel, (x * (width + GAP), y * (height + GAP)))
    return picture


if __name__ == "__main__":
    main()
