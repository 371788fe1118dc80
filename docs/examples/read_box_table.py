"""Summarise a box table with pandas: when is which object in view, and how large is it?

tcam predict runs/pets-001 --source holiday.mp4 -o boxes.csv --track
python docs/examples/read_box_table.py boxes.csv
"""

import argparse

import pandas as pd


def main() -> None:
    """Read the arguments and print a row per video and object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="boxes.csv of tcam predict")
    parser.add_argument("--min-score", type=float, default=0.0, help="leave out frames with a lower class score")
    arguments = parser.parse_args()

    table = pd.read_csv(arguments.table)
    found = table[(table["status"] == "ok") & (table["class_score"] >= arguments.min_score)].copy()
    area = (found["x1"] - found["x0"]) * (found["y1"] - found["y0"])
    found["share of frame"] = area / (found["width"] * found["height"])
    found["track_id"] = found["track_id"].fillna(0).astype(int)
    summary = found.groupby(["video", "class", "track_id"]).agg(
        frames=("frame", "size"),
        first_s=("time_s", "min"),
        last_s=("time_s", "max"),
        class_score=("class_score", "mean"),
        share_of_frame=("share of frame", "mean"),
    )
    print(f"{len(found)} of {len(table)} frames hold an object")
    print(summary.round(2).to_string())


if __name__ == "__main__":
    main()
