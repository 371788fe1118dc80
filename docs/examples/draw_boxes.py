"""Draw a box table on its video with supervision (pip install supervision).

tcam predict runs/pets-001 --source holiday.mp4 -o boxes.csv
python docs/examples/draw_boxes.py holiday.mp4 boxes.csv drawn.mp4
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import supervision as sv


def main() -> None:
    """Read the arguments and write the video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("table", help="boxes.csv of this video")
    parser.add_argument("output", help="video to write")
    arguments = parser.parse_args()

    if Path(arguments.output).exists():
        parser.error(f"{arguments.output} exists: choose another name")

    table = pd.read_csv(arguments.table)
    by_frame = dict(iter(table[table["status"] == "ok"].groupby("frame")))
    draw_box, draw_label = sv.BoxAnnotator(), sv.LabelAnnotator()
    with sv.VideoSink(arguments.output, sv.VideoInfo.from_video_path(arguments.video)) as sink:
        for index, frame in enumerate(sv.get_video_frames_generator(arguments.video)):
            rows = by_frame.get(index)
            detections = sv.Detections.empty() if rows is None else to_detections(rows)
            labels = [] if rows is None else [f"{row['class']} {row['score']:.2f}" for _, row in rows.iterrows()]
            sink.write_frame(draw_label.annotate(draw_box.annotate(frame, detections), detections, labels))


def to_detections(rows: pd.DataFrame) -> sv.Detections:
    """Turn rows of the box table into detections."""
    return sv.Detections(
        xyxy=rows[["x0", "y0", "x1", "y1"]].to_numpy(np.float32),
        confidence=rows["score"].to_numpy(np.float32),
        class_id=np.zeros(len(rows), int),
        data={"class_name": rows["class"].to_numpy()},
    )


if __name__ == "__main__":
    main()
