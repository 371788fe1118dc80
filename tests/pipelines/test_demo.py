"""The tour that a newcomer takes first."""

import json

import pandas as pd
import pytest

from tcam.video.probe import probe_video


@pytest.mark.slow
def test_the_demo_leaves_table_report_video_and_boxes(tcam, tmp_path):
    found = tcam("demo", "-o", tmp_path, "--device", "cpu")
    assert found.code == 0, found.err
    assert found.out == ""
    table = pd.read_csv(tmp_path / "report" / "table.csv").set_index("method")["mean over classes"]
    rows = json.loads((tmp_path / "runs" / "demo-001" / "evaluation" / "test.json").read_text())
    assert [row["method"] for row in rows] == [
        "centre box (50 %)",
        "full frame",
        "layercam",
        "tcam",
        "layercam",
        "tcam",
    ]
    assert table["full frame"] < table["layercam"].iloc[0]
    assert table["centre box (50 %)"] < table["tcam"].iloc[0]
    overlay = probe_video(tmp_path / "report" / "overlay.mp4")
    assert (overlay.codec, overlay.num_frames) == ("h264", 28)
    boxes = pd.read_csv(tmp_path / "boxes.csv")
    assert list(boxes["frame"]) == list(range(28))
    assert len(list((tmp_path / "report" / "pictures").glob("*.jpg"))) == 12
