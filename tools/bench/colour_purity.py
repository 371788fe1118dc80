"""Measure on annotated clips whether colour separates the object from the background: the purity of boxed pixels.

    .venv/bin/python tools/bench/colour_purity.py --run RUN --split val

The purity of a boxed pixel is the share of its kernel mass that lies in boxes. It is computed at 56 x 56 over every
pair of pixels: for the joint kernel of CoLo-CAM on sequences of 4 frames with boxes, and for TCAM's kernel over
position and colour on single frames. Prints for each class the share of the frame in boxes, the mean purity of boxed
pixels, and the share of boxed pixels with a purity above 1/2. If that is small, the energy pulls even the pixels of a
map that equals the boxes towards the background.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from harness import header, table_head, table_row
from torch import Tensor

from pipelines.models.run import load_run
from tcam.types import Box, Size
from tcam.video.dataset import stream_original

SIDE, FRAMES, SIGMA_RGB = 56, 4, 15.0
SIGMA_XY = 100.0 * SIDE / 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="any run on the videos, for its index and boxes")
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    parser.add_argument("--sequences", type=int, default=3, help="per video")
    options = parser.parse_args()
    run = load_run(options.run, device="cpu")
    boxes = {(item.video_id, item.frame_index): item.boxes for item in run.truth}
    found: dict[str, list[Tensor]] = defaultdict(list)
    for record in run.index.of_split(options.split):
        frames = [f for f in stream_original(record, size=(SIDE, SIDE)) if (record.video_id, f.index) in boxes]
        starts = range(0, max(len(frames) - FRAMES + 1, 1), max(1, len(frames) // options.sequences))
        for clip in [frames[start : start + FRAMES] for start in starts][: options.sequences]:
            inside = torch.stack([paint(boxes[record.video_id, f.index], f.original_size) for f in clip])
            pixels = torch.stack([torch.from_numpy(f.pixels) for f in clip]).permute(0, 2, 3, 1).float()
            if inside.any():
                name = run.index.class_names[record.label]
                found[name].append(torch.tensor([float(inside.float().mean()), *purities(pixels, inside)]))
    count = sum(map(len, found.values()))
    print(header(f"{options.split}, {count} sequences of up to {FRAMES} frames, sigma_rgb {SIGMA_RGB:g}"), end="\n\n")
    columns = ("joint colour: purity %", "pixels above 1/2 %", "+ position: purity %", "pixels above 1/2 %")
    print(table_head("class", "share of frame in boxes %", *columns))
    rows = {name: torch.stack(values).mean(dim=0) for name, values in sorted(found.items())}
    rows["mean"] = torch.stack(list(rows.values())).mean(dim=0)
    for name, row in rows.items():
        print(table_row(name, *(f"{100 * value:.1f}" for value in row.tolist())))


def paint(boxes: Sequence[Box], size: Size) -> Tensor:
    """Return a mask of the pixels in any box, bool ``[SIDE, SIDE]``."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        rows = slice(int(y0 * SIDE / size[0]), max(int(y0 * SIDE / size[0]) + 1, round(y1 * SIDE / size[0])))
        mask[rows, int(x0 * SIDE / size[1]) : max(int(x0 * SIDE / size[1]) + 1, round(x1 * SIDE / size[1]))] = True
    return mask


def purities(pixels: Tensor, inside: Tensor) -> list[float]:
    """Return the purity, and its share above 1/2: by colour over all frames, then by position and colour per frame."""
    joint = purity(pixels.flatten(0, 2) / SIGMA_RGB, inside.flatten())
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), dim=-1) / SIGMA_XY
    single = [
        purity(torch.cat([frame / SIGMA_RGB, grid], dim=-1).flatten(0, 1), mask.flatten())
        for frame, mask in zip(pixels, inside, strict=True)
    ]
    return [figure for each in (joint, torch.cat(single)) for figure in (float(each.mean()), share_above_half(each))]


def share_above_half(values: Tensor) -> float:
    return float((values > 0.5).float().mean())


def purity(features: Tensor, inside: Tensor) -> Tensor:
    """Return each boxed pixel's share of kernel mass that lies in boxes, ``[boxed pixels]``."""
    kernel = torch.exp(-0.5 * torch.cdist(features[inside], features).square())
    return kernel[:, inside].sum(dim=1) / kernel.sum(dim=1)


if __name__ == "__main__":
    main()
