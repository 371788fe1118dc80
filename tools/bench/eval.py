"""Boxes and overlaps at 1000 map thresholds against an OpenCV findContours loop: time and equality, in one run.

    OMP_NUM_THREADS=1 .venv/bin/python tools/bench/eval.py --clips ../shared/data/clips

From a map in 0..1 to the best IoU with 1 or 2 true boxes at thresholds 0, 0.001 ... 0.999. The peer is the rule of the
WSOL benchmark, one threshold after the other: `findContours`, the contour with the largest `contourArea` (or all of
them), `boundingRect`; the IoU of all its boxes is one numpy expression at the end. The published loop does more: for
each threshold it finds the best true box of all boxes again (design notes; the goals are against that one). Ours:
`contour` and `all` are the exact sweeps under the benchmark's rule (`contours.py`), `pixels` is the sweep under our own
rule of the component with most pixels (`components_sweep.py`). `contour` and `all` must equal the peer at every
threshold, or the run fails. Peer and ours take turns, map by map; medians over maps and rounds; one thread.

A second table is of one threshold, as inference has it: from a float32 map to the box of the component with most
pixels, eight maps at a time. Peers: OpenCV's connected components, which must find the same box, its `findContours`,
which looks for the largest area inside a contour instead, and the components of SciPy.

Maps: smooth (7 x 7 values, bilinear), decoder-like (steep blobs with some noise), noisy (uniform noise), and with
--clips real (LayerCAM of the ImageNet network, under a head that was never trained).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from pipelines.run.environment import processor_name
from tcam.boxes.boxes import best_overlap, inclusive_iou
from tcam.boxes.extract import boxes_at_thresholds, extract_boxes
from tcam.metrics.benchmark import best_contour_boxes, largest_contour_boxes
from tcam.types import FrameGeometry

THRESHOLDS = torch.arange(1000, dtype=torch.float64) / 1000
TRUTH = torch.tensor([[60.0, 40, 150, 170], [10, 100, 90, 200]], dtype=torch.float64)
GOALS = {"contour": 25, "all": 25}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder <class>/<clip>.mp4 of the real maps")
    parser.add_argument("--weights", type=Path, help="of mobilenetv2_100; beside the clips where left out")
    parser.add_argument("--maps", type=int, default=6, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    print(
        f"commit {commit.stdout.strip()}, {processor_name()}, {os.cpu_count()} cores, one thread; "
        f"OpenCV {cv2.__version__}, torch {torch.__version__}; {options.maps} maps a kind, {options.rounds} rounds\n"
    )
    print("| maps | true boxes | loop, published ms | contour | pixels | all: loop, published ms | all |")
    print("|---|" + "---:|" * 6)
    for kind, maps in make_maps(options).items():
        for count in (1, 2):
            print_row(kind, maps, TRUTH[:count], 1 if kind == "noisy" else options.rounds)
    print("\nOurs in ms, and how many times faster than the loop and the published loop.", end=" ")
    print(f"Goals: {GOALS}. All boxes and overlaps were equal.\n")
    print("One threshold (0.5), microseconds a map: ours, and a peer's with how many times ours is faster\n")
    print("| maps | ours | OpenCV components | OpenCV contours | SciPy components |")
    print("|---|---:|---:|---:|---:|")
    for kind, maps in make_maps(options).items():
        print_box_row(kind, maps.float(), options.rounds)


def print_row(kind: str, maps: Tensor, truth: Tensor, rounds: int) -> None:
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "peer": lambda one: peer(one, truth, every=False),
        "published": lambda one: peer(one, truth, every=False, anew=True),
        "contour": lambda one: ours(largest_contour_boxes(one[None], THRESHOLDS), truth),
        "pixels": lambda one: ours(boxes_at_thresholds(one[None], THRESHOLDS), truth),
        "peer, all": lambda one: peer(one, truth, every=True),
        "published, all": lambda one: peer(one, truth, every=True, anew=True),
        "all": lambda one: ours(best_contour_boxes(one[None], THRESHOLDS, truth[None]), truth),
    }
    pairs = {"contour": "peer", "all": "peer, all", "published": "peer"}
    if kind == "noisy":  # thousands of contours at each threshold: seconds a map for the peer, minutes for all of them
        maps = maps[:1]
        del ways["peer, all"], ways["published, all"], ways["all"], pairs["all"]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in (largest_contour_boxes, boxes_at_thresholds):
        way(maps[:1], [0.5])  # compiles
    best_contour_boxes(maps[:1], [0.5], truth[None])
    for _, one in itertools.product(range(rounds), maps):
        found = {}
        for name, way in ways.items():
            began = time.thread_time()
            found[name] = way(one)
            times[name].append(time.thread_time() - began)
        for name, reference in pairs.items():
            if not torch.equal(found[name], found[reference]):
                sys.exit(f"bench_eval: {name} differs from {reference} on a {kind} map")
    middle = {name: 1000 * statistics.median(values) for name, values in times.items()}
    cells = [f"{middle['peer']:.1f}, {middle['published']:.1f}"]
    cells += [against(middle[name], middle["peer"], middle["published"]) for name in ("contour", "pixels")]
    if "all" in middle:
        cells += [f"{middle['peer, all']:.1f}, {middle['published, all']:.1f}"]
        cells += [against(middle["all"], middle["peer, all"], middle["published, all"])]
    else:
        cells += ["–", "–"]
    print(f"| {kind} | {len(truth)} | " + " | ".join(cells) + " |", flush=True)


def print_box_row(kind: str, maps: Tensor, rounds: int) -> None:
    batch = maps.repeat(-(-8 // len(maps)), 1, 1)[:8].contiguous()
    geometry = FrameGeometry.plain_resize((224, 224), (224, 224))
    ways: dict[str, Callable[[], list[tuple[float, ...]]]] = {
        "ours": lambda: [astuple(box) for box in extract_boxes(batch, 0.5, [geometry] * 8) if box is not None],
        "components": lambda: [by_components(binarise(one)) for one in batch],
        "contours": lambda: [by_contours(binarise(one)) for one in batch],
        "scipy": lambda: [by_labels(binarise(one)) for one in batch],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for turn in range(10 * rounds + 1):
        for name, way in ways.items():
            began = time.thread_time()
            found[name] = way()
            if turn:  # the first one compiles
                times[name].append(1e6 * (time.thread_time() - began) / len(batch))
    if found["ours"] != found["components"]:
        sys.exit(f"bench_eval: boxes differ from those of OpenCV's components on {kind} maps")
    mine, *others = (statistics.median(values) for values in times.values())
    print(
        f"| {kind} | {mine:.0f} | " + " | ".join(f"{other:.0f} ({other / mine:.1f}x)" for other in others) + " |",
        flush=True,
    )


def binarise(one: Tensor) -> np.ndarray:
    levels = (one.numpy() * 255).astype(np.uint8)
    return cv2.threshold(levels, int(0.5 * int(levels.max())), 1, cv2.THRESH_BINARY)[1]


def by_components(mask: np.ndarray) -> tuple[float, ...]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    x, y, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()].tolist()
    return float(x), float(y), float(x + width), float(y + height)


def by_contours(mask: np.ndarray) -> tuple[float, ...]:
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return float(x), float(y), float(x + width), float(y + height)


def by_labels(mask: np.ndarray) -> tuple[float, ...]:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    largest = 1 + np.bincount(labels.ravel(), minlength=count + 1)[1:].argmax()
    rows, columns = ndimage.find_objects(labels)[largest - 1]
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)


def against(mine: float, loop: float, published: float) -> str:
    return f"{mine:.2f} ({loop / mine:.1f}x, {published / mine:.1f}x)"


def ours(boxes: Tensor, truth: Tensor) -> Tensor:
    return best_overlap(boxes, truth[None], inclusive=True)[0][0]


def peer(one: Tensor, truth: Tensor, *, every: bool, anew: bool = False) -> Tensor:
    """Return the best IoU at each threshold, ``[1000]``: contours of one binarised map after the other.

    ``anew``: as the published loop does, with the best true box of all boxes found again for each threshold.
    """
    levels = (one.numpy() * 255).astype(np.uint8)
    peak, (height, width) = int(levels.max()), levels.shape
    boxes, counts = [], []
    for threshold in THRESHOLDS.tolist():
        kept = cv2.threshold(levels, int(threshold * peak), 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(kept, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if contours and not every:
            contours = [max(contours, key=cv2.contourArea)]
        counts.append(max(len(contours), 1))
        boxes += [cv2.boundingRect(contour) for contour in contours] or [(0, 0, 0, 0)]
    corners = np.array(boxes, dtype=np.float64)
    ends = np.minimum(corners[:, :2] + corners[:, 2:], [width - 1, height - 1])
    found = torch.from_numpy(np.concatenate([corners[:, :2], ends], axis=1))
    first = np.cumsum([0, *counts[:-1]])
    if anew:
        pairs = inclusive_iou(found[:, None], truth[None]).numpy()
        best = [pairs.max(axis=1)[start : start + count].max() for start, count in zip(first, counts, strict=True)]
        return torch.tensor(best)
    overlap = best_overlap(found[None], truth[None], inclusive=True)[0][0].numpy()
    return torch.from_numpy(np.maximum.reduceat(overlap, first))


def make_maps(options: argparse.Namespace) -> dict[str, Tensor]:
    """Draw maps of each kind, float64 ``[N, 224, 224]`` from 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(options.maps, 1, 7, 7, generator=generator)
    smooth = functional.interpolate(coarse, size=(224, 224), mode="bilinear")[:, 0]
    blobs = 6 * torch.randn(options.maps, 1, 12, 12, generator=generator) - 4
    noise = torch.randn(options.maps, 224, 224, generator=generator)
    decoder = torch.sigmoid(functional.interpolate(blobs, size=(224, 224), mode="bicubic")[:, 0] + 0.05 * noise)
    maps = {"smooth": smooth, "decoder-like": decoder, "noisy": torch.rand(noise.shape, generator=generator)}
    if options.clips is not None:
        weights = options.weights or options.clips.parent / "weights" / "mobilenetv2_100_tf_same_fp16.safetensors"
        maps["real"] = layer_cams(options.clips, weights, options.maps)
    return {kind: stretch(some.double()) for kind, some in maps.items()}


def stretch(maps: Tensor) -> Tensor:
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


def layer_cams(clips: Path, weights: Path, count: int) -> Tensor:
    from tcam.model.backbone import Backbone, load_backbone_weights
    from tcam.model.cam.inputs import from_head, normalize_cam
    from tcam.model.cam.methods import make_cam
    from tcam.model.heads.pooling import Wgap
    from tcam.model.network import FrameCamNet
    from tcam.video.reader import stream_frames

    files = sorted(clips.glob("*/*.mp4"))
    if len(files) < count:
        sys.exit(f"bench_eval: expected {count} videos */*.mp4 below {clips}, found {len(files)}")
    torch.manual_seed(0)
    backbone = Backbone("mobilenetv2_100", output_stride=8, options={"pad_type": "same"})
    load_backbone_weights(backbone, str(weights))
    network = FrameCamNet(backbone, Wgap(backbone.last_channels, 3), None).eval()
    chosen = [files[i * len(files) // count] for i in range(count)]
    frames = torch.stack([torch.from_numpy(next(stream_frames(file, size=(224, 224))).pixels) for file in chosen])
    with torch.inference_mode():
        output = network(frames)
        cams = normalize_cam(make_cam("layercam", from_head(output.features, torch.arange(count) % 3, network.head)))
    return functional.interpolate(cams[:, None], size=(224, 224), mode="bilinear", align_corners=False)[:, 0].clone()


if __name__ == "__main__":
    main()
