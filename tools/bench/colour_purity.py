"""Can colour tell the object from the rest? How much of a boxed pixel's kernel mass lies in boxes, on annotated clips.

    .venv/bin/python tools/bench/colour_purity.py --run RUN --split val

For frames with boxes (sequences of 4 around them for the joint kernel of CoLo-CAM, single frames for the kernel over
position and colour of TCAM), at 56 x 56 with every pair of pixels, prints per class: the share of the frame in boxes,
the mean purity of boxed pixels (kernel mass inside boxes / all), and the share of boxed pixels with purity above 1/2.
Where that is small, the energy pulls the pixels of a map that already equals the boxes towards the background.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

SIDE, FRAMES, SIGMA_RGB = 56, 4, 15.0
SIGMA_XY = 100.0 * SIDE / 224


def main() -> None:
    from pipelines.models.run import load_run
    from tcam.video.dataset import stream_original

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="any run on the videos: its index and boxes are read")
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
    print(f"{options.split}, {count} sequences of up to {FRAMES} frames, sigma_rgb {SIGMA_RGB:g}")
    print("| class | share of frame in boxes % | joint colour: purity % | pixels above 1/2 % | + position: purity % "
          "| pixels above 1/2 % |\n|---|---:|---:|---:|---:|---:|")  # fmt: skip
    rows = {name: torch.stack(values).mean(dim=0) for name, values in sorted(found.items())}
    rows["mean"] = torch.stack(list(rows.values())).mean(dim=0)
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{100 * value:.1f}" for value in row.tolist()) + " |")


def paint(boxes: tuple[object, ...], size: tuple[int, int]) -> Tensor:
    """Mark the pixels in any box, bool ``[SIDE, SIDE]``."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:  # type: ignore[misc]
        rows = slice(int(y0 * SIDE / size[0]), max(int(y0 * SIDE / size[0]) + 1, round(y1 * SIDE / size[0])))
        mask[rows, int(x0 * SIDE / size[1]) : max(int(x0 * SIDE / size[1]) + 1, round(x1 * SIDE / size[1]))] = True
    return mask


def purities(pixels: Tensor, inside: Tensor) -> list[float]:
    """Purity and share above 1/2 of boxed pixels: colour over all frames, then position and colour frame by frame."""
    joint = purity(pixels.flatten(0, 2) / SIGMA_RGB, inside.flatten())
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), dim=-1) / SIGMA_XY
    single = [
        purity(torch.cat([frame / SIGMA_RGB, grid], dim=-1).flatten(0, 1), mask.flatten())
        for frame, mask in zip(pixels, inside, strict=True)
    ]
    alone = torch.cat(single)
    return [float(joint.mean()), float((joint > 0.5).float().mean()),
            float(alone.mean()), float((alone > 0.5).float().mean())]  # fmt: skip


def purity(features: Tensor, inside: Tensor) -> Tensor:
    """Return each boxed pixel's share of kernel mass that lies in boxes, ``[boxed pixels]``."""
    kernel = torch.exp(-0.5 * torch.cdist(features[inside], features).square())
    return kernel[:, inside].sum(dim=1) / kernel.sum(dim=1)


if __name__ == "__main__":
    main()
