"""Time boxes and overlaps at 1000 map thresholds, and compare them with a loop over OpenCV's findContours.

    OMP_NUM_THREADS=1 .venv/bin/python tools/bench/eval.py --clips ../shared/data/clips

The first table is from a map in 0..1 to the best IoU with 1 or 2 true boxes at thresholds 0, 0.001 ... 0.999. The peer
follows the WSOL benchmark, threshold by threshold: `findContours`, the contour with the largest `contourArea` (or all
contours), `boundingRect`; the IoU of all its boxes is one numpy expression at the end. The published loop is slower: it
finds the best true box again at each threshold (see the design notes; the goals compare with this loop). Of ours,
`contour` and `all` are the exact sweeps under the benchmark's rule (`contours.py`), and `pixels` is the sweep under our
own rule, the component with most pixels (`components_sweep.py`). `contour` and `all` must equal the peer at every
threshold, or the run fails. Peer and ours take turns, map by map; medians over maps and rounds; one thread.

The second table is of one threshold, as in inference: from a float32 map to the box of the component with most pixels,
eight maps at a time. The peers are OpenCV's connected components, which must find the same box, its `findContours`,
which compares the areas inside contours instead, and the components of SciPy.

Maps: smooth (7 x 7 values, bilinear), decoder-like (steep blobs with some noise), noisy (uniform noise), and with
``--clips`` real (LayerCAM of the ImageNet network with an untrained head).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from frames import read_frames
from harness import Timings, header, measure, table_head, table_row
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

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
    parser.add_argument("--weights", type=Path, help="of mobilenetv2_100; default: in weights/ beside the clips")
    parser.add_argument("--maps", type=int, default=6, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    facts = f"OpenCV {cv2.__version__}, {options.maps} maps of each kind, {options.rounds} rounds"
    print(header(facts, packages=("numba", "scipy")), end="\n\n")
    columns = ("loop, published ms", "contour", "pixels", "all: loop, published ms", "all")
    print(table_head("maps", "true boxes", *columns))
    for kind, maps in make_maps(options).items():
        for count in (1, 2):
            print_row(kind, maps, TRUTH[:count], 1 if kind == "noisy" else options.rounds)
    print("\nOurs in ms, with its speed as a multiple of the loop's and of the published loop's.", end=" ")
    print(f"Goals: {GOALS}. All boxes and overlaps were equal.\n")
    print("One threshold (0.5), microseconds per map; in brackets: our speed as a multiple of the peer's\n")
    print(table_head("maps", "ours", "OpenCV components", "OpenCV contours", "SciPy components"))
    for kind, maps in make_maps(options).items():
        print_box_row(kind, maps.float(), options.rounds)


def print_row(kind: str, maps: Tensor, truth: Tensor, rounds: int) -> None:
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "peer": lambda one: peer(one, truth, every=False),
        "published": lambda one: peer(one, truth, every=False, again=True),
        "contour": lambda one: ours(largest_contour_boxes(one[None], THRESHOLDS), truth),
        "pixels": lambda one: ours(boxes_at_thresholds(one[None], THRESHOLDS), truth),
        "peer, all": lambda one: peer(one, truth, every=True),
        "published, all": lambda one: peer(one, truth, every=True, again=True),
        "all": lambda one: ours(best_contour_boxes(one[None], THRESHOLDS, truth[None]), truth),
    }
    pairs = {"contour": "peer", "all": "peer, all", "published": "peer"}
    if kind == "noisy":  # thousands of contours at each threshold: the peer takes seconds per map, minutes for all
        maps = maps[:1]
        del ways["peer, all"], ways["published, all"], ways["all"], pairs["all"]
    for way in (largest_contour_boxes, boxes_at_thresholds):
        way(maps[:1], [0.5])  # compiles
    best_contour_boxes(maps[:1], [0.5], truth[None])
    timings: Timings[str] = Timings(time.thread_time)
    for _, one in itertools.product(range(rounds), maps):
        found = timings.take_turns({name: partial(way, one) for name, way in ways.items()})
        for name, reference in pairs.items():
            if not torch.equal(found[name], found[reference]):
                sys.exit(f"error: {name} differs from {reference} on a {kind} map")
    middle = {name: 1000 * seconds for name, seconds in timings.medians().items()}
    cells = [f"{middle['peer']:.1f}, {middle['published']:.1f}"]
    cells += [against(middle[name], middle["peer"], middle["published"]) for name in ("contour", "pixels")]
    if "all" in middle:
        cells += [f"{middle['peer, all']:.1f}, {middle['published, all']:.1f}"]
        cells += [against(middle["all"], middle["peer, all"], middle["published, all"])]
    else:
        cells += ["–", "–"]
    print(table_row(kind, len(truth), *cells), flush=True)


def print_box_row(kind: str, maps: Tensor, rounds: int) -> None:
    batch = maps.repeat(-(-8 // len(maps)), 1, 1)[:8].contiguous()
    geometry = FrameGeometry.plain_resize((224, 224), (224, 224))
    ways: dict[str, Callable[[], list[tuple[float, ...]]]] = {
        "ours": lambda: [astuple(box) for box in extract_boxes(batch, 0.5, [geometry] * 8) if box is not None],
        "components": lambda: [by_components(binarise(one)) for one in batch],
        "contours": lambda: [by_contours(binarise(one)) for one in batch],
        "scipy": lambda: [by_labels(binarise(one)) for one in batch],
    }
    timings, found = measure(ways, 10 * rounds, clock=time.thread_time)
    if found["ours"] != found["components"]:
        sys.exit(f"error: boxes differ from those of OpenCV's components on {kind} maps")
    mine, *others = (1e6 * seconds / len(batch) for seconds in timings.medians().values())
    print(table_row(kind, f"{mine:.0f}", *(f"{other:.0f} ({other / mine:.1f}x)" for other in others)), flush=True)


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


def peer(one: Tensor, truth: Tensor, *, every: bool, again: bool = False) -> Tensor:
    """Return the best IoU at each threshold, ``[1000]``, from the contours of the binarised map.

    Args:
        one: map ``[H, W]`` in 0..1.
        truth: true boxes ``[N, 4]``.
        every: compare all contours, not only the one with the largest area.
        again: find the best true box again at each threshold, as the published loop does.
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
    if again:
        pairs = inclusive_iou(found[:, None], truth[None]).numpy()
        best = [pairs.max(axis=1)[start : start + count].max() for start, count in zip(first, counts, strict=True)]
        return torch.tensor(best)
    overlap = best_overlap(found[None], truth[None], inclusive=True)[0][0].numpy()
    return torch.from_numpy(np.maximum.reduceat(overlap, first))


def make_maps(options: argparse.Namespace) -> dict[str, Tensor]:
    """Return maps of each kind, float64 ``[N, 224, 224]`` in 0..1."""
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

    torch.manual_seed(0)
    backbone = Backbone("mobilenetv2_100", output_stride=8, options={"pad_type": "same"})
    load_backbone_weights(backbone, str(weights))
    network = FrameCamNet(backbone, Wgap(backbone.last_channels, 3), None).eval()
    frames = read_frames(clips, count)
    with torch.inference_mode():
        output = network(frames)
        cams = normalize_cam(make_cam("layercam", from_head(output.features, torch.arange(count) % 3, network.head)))
    return functional.interpolate(cams[:, None], size=(224, 224), mode="bilinear", align_corners=False)[:, 0].clone()


if __name__ == "__main__":
    main()
