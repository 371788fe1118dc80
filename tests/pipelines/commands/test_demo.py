"""The tour that a newcomer takes first."""

import re
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipelines.commands import demo
from pipelines.commands.demo import join_tables, next_steps
from pipelines.synthetic.videos import write_synthetic_videos
from tcam.metrics.corloc import CorLocEvaluator
from tcam.types import Box, FrameTruth
from tcam.video.probe import probe_video

REPO = Path(__file__).parents[3]
FRAMES = 14


@pytest.mark.slow
def test_the_demo_leaves_table_report_video_and_boxes(tcam, tmp_path, monkeypatch):
    # One epoch of six on a third of the smaller frames beats the centre box already; `tools/demo` is the whole one.
    shorter = ("classifier.epochs=1", "localizer.epochs=1", "input.resize=75", "input.crop=64")
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS + shorter)
    fewer = partial(write_synthetic_videos, videos_per_class=(6, 2, 3), frames=FRAMES)
    monkeypatch.setattr(demo, "write_synthetic_videos", fewer)
    found = tcam("demo", "-o", tmp_path, "--device", "cpu")
    assert found.code == 0, found.err
    assert found.out == ""
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"demo-tcam-001", "demo-colocam-001"}
    assert "cams: unchanged, taken from demo-tcam-001" in " ".join(found.err.split())
    named = {word for word in found.err.replace(":", " ").split() if word.startswith(str(tmp_path))}
    assert {tmp_path / "report" / "report.html", tmp_path / "report" / "overlay.mp4"} <= set(map(Path, named))
    advice = next(line for line in found.err.splitlines() if line.startswith("  tcam predict "))
    assert tcam(*advice.split()[1:], "--quiet").code == 0
    rows = pd.read_csv(tmp_path / "report" / "table.csv")
    learnt = ["layercam", "tcam", "colocam"]
    assert list(rows["method"]) == ["centre box (50 %)", "full frame", *learnt * 4]  # four thresholds
    table = rows.drop_duplicates("method").set_index("method")["mean over classes"]
    assert table["full frame"] < table["layercam"]
    assert table["centre box (50 %)"] < min(table["tcam"], table["colocam"])
    overlay = probe_video(tmp_path / "report" / "overlay.mp4")
    assert (overlay.codec, overlay.num_frames) == ("h264", FRAMES)
    boxes = pd.read_csv(tmp_path / "boxes.csv")
    assert list(boxes["frame"]) == list(range(FRAMES))
    assert (tmp_path / "report" / "report.html").read_text().count("<img") == 12 * 4  # the frame and three maps


def test_the_last_lines_name_what_there_is(tcam):
    folder = Path("runs/demo")
    text = next_steps(folder, folder / "report" / "report.html", folder / "runs" / "x-001", folder / "fish")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    commands = [line.split()[1] for line in lines if line.startswith("  tcam ")]
    assert commands == ["predict", "train", "doctor"]
    for command in commands:
        assert tcam(command, "--help").code == 0
    for page in re.findall(r"docs/[\w-]+\.md", "".join(lines)):
        assert (REPO / page).is_file()


def test_tables_of_the_same_videos_are_joined_row_by_row():
    def table(name):
        rows = [("baseline", "none"), ("cam", "validation"), (name, "validation"), ("cam", "oracle"), (name, "oracle")]
        return [(method, evaluator.table(choice, None if choice == "oracle" else 0.5)) for method, choice in rows]

    evaluator = CorLocEvaluator(("a",), [0.5])
    evaluator.add([FrameTruth("video", 0, 0, (Box(0, 0, 2, 2),))], torch.ones(1, 1))
    joined = join_tables([table("one"), table("two")])
    assert [(name, result.protocol.threshold_choice) for name, result in joined] == [
        ("baseline", "none"),
        *((name, "validation") for name in ("cam", "one", "two")),
        *((name, "oracle") for name in ("cam", "one", "two")),
    ]
