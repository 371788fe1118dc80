"""Compute CorLoc of any box table against true boxes, e.g. boxes that another program found.

python docs/examples/evaluate_boxes.py boxes.csv videos/boxes.csv

Both tables need the columns video, frame, x0, y0, x1, y1. If the predicted table has a column class, CorLoc is also
given per class. A frame counts as right if its box overlaps a true one with IoU >= 0.5.
"""

import argparse
from pathlib import PurePosixPath

import pandas as pd
import torch

from tcam.boxes.boxes import iou

SIDES = ["x0", "y0", "x1", "y1"]


def main() -> None:
    """Read the arguments and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predicted", help="table of boxes, at most one per frame")
    parser.add_argument("truth", help="table of true boxes, perhaps several per frame")
    parser.add_argument("--iou", type=float, default=0.5)
    arguments = parser.parse_args()

    predicted, truth = (read(path) for path in (arguments.predicted, arguments.truth))
    both = truth.dropna(subset=SIDES).merge(predicted, on=["name", "frame"], how="inner", suffixes=("_true", ""))
    found, true = (torch.tensor(both[sides].to_numpy()) for sides in (SIDES, [f"{side}_true" for side in SIDES]))
    both["iou"] = iou(found, true).nan_to_num(0.0).numpy()
    best = both.groupby(["name", "frame"]).agg("first").assign(iou=both.groupby(["name", "frame"])["iou"].max())
    if best.empty:
        raise SystemExit("no frame is in both tables: compare the names of their videos")
    right = best["iou"] >= arguments.iou
    print(f"frames compared: {len(best)}, mean IoU {best['iou'].mean():.3f}, CorLoc {100 * right.mean():.1f} %")
    if "class" in best:
        print((100 * right.groupby(best["class"]).mean()).round(1).to_string())


def read(path: str) -> pd.DataFrame:
    """Read a table; videos are compared by file name without folders and ending."""
    table = pd.read_csv(path)
    return table.assign(name=[PurePosixPath(video).stem for video in table["video"]])


if __name__ == "__main__":
    main()
