import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pipelines.inference.box_table import CHUNK, open_box_sink, read_boxes, sidecar
from pipelines.inference.rows import COLUMNS
from tcam.errors import ConfigError, DataError
from tcam.types import Box, FrameBox

FOUND = Box(1.234, 2.0, 30.006, 40.5)


def frame(index: int, box: Box | None = FOUND, *, video: str = "dog/rex.mp4") -> FrameBox:
    return FrameBox(video, index, index / 24, 1, class_score=0.75, score=0.5 if box else 0.0, box=box)


def write(target, frames, *, class_name: str = "dog", track_id: int | None = None, **more) -> None:
    with open_box_sink(str(target), metadata={"run": "pets-001"}) as sink:
        for item in frames:
            named = replace(item, class_name=class_name, track_id=track_id)
            sink.write(named, size=(120, 160), threshold=0.35, **more)


def frames_then_an_error():
    yield from (frame(index) for index in range(CHUNK + 5))
    raise RuntimeError("lost")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_table_back(tmp_path, suffix):
    target = tmp_path / f"boxes{suffix}"
    write(target, [frame(0), frame(1, None), frame(2)])
    table = read_boxes(target)
    assert tuple(table.columns) == COLUMNS
    assert table["video"].tolist() == ["dog/rex.mp4"] * 3
    assert table["frame"].tolist() == [0, 1, 2]
    assert table["time_s"].tolist() == [0, 0.041667, 0.083333]
    assert table["status"].tolist() == ["ok", "none", "ok"]
    assert table.loc[0, ["x0", "y0", "x1", "y1"]].tolist() == [1.23, 2.0, 30.01, 40.5]
    assert table.loc[1, ["x0", "y0", "x1", "y1"]].isna().all()
    assert table["track_id"].isna().all()
    assert table.loc[0, ["width", "height", "class_score", "score", "threshold"]].tolist() == [
        160,
        120,
        0.75,
        0.5,
        0.35,
    ]
    other = tmp_path / "other.csv"
    write(other, [frame(0), frame(1, None), frame(2)])
    pd.testing.assert_frame_equal(table, read_boxes(other))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["no", "007", "NA", "nan", "", 'a,"b"', "猫", "=1+1", "two\nlines", " x "])
def test_class_and_video_names_stay_the_strings_they_were(tmp_path, suffix, name):
    target = tmp_path / f"boxes{suffix}"
    write(target, [frame(0, video=name)], class_name=name)
    table = read_boxes(target)
    assert (table.loc[0, "class"], table.loc[0, "video"]) == (name, name)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_file_names_that_are_not_utf8_are_spelled_out(tmp_path, suffix):
    target = tmp_path / f"boxes{suffix}"
    write(target, [frame(0, video=os.fsdecode(b"dog/caf\xe9.mp4"))])
    assert read_boxes(target).loc[0, "video"] == "dog/caf\\udce9.mp4"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("count", [0, CHUNK, CHUNK + 1])
def test_chunks_lose_no_row(tmp_path, suffix, count):
    target = tmp_path / f"boxes{suffix}"
    write(target, [frame(index) for index in range(count)])
    assert read_boxes(target)["frame"].tolist() == list(range(count))


def test_track_and_status_are_kept(tmp_path):
    target = tmp_path / "boxes.jsonl"
    write(target, [frame(0), frame(1, None)], track_id=7)
    table = read_boxes(target)
    assert table["track_id"].tolist() == [7, 7]
    assert table["status"].tolist() == ["ok", "none"]


def test_csv_is_plain_text_with_empty_cells_for_nothing(tmp_path):
    write(tmp_path / "boxes.csv", [frame(0), frame(1, None)])
    assert (tmp_path / "boxes.csv").read_text().splitlines() == [
        ",".join(COLUMNS),
        "dog/rex.mp4,0,0.0,160,120,dog,0.75,1.23,2.0,30.01,40.5,0.5,0.35,,ok",
        "dog/rex.mp4,1,0.041667,160,120,dog,0.75,,,,,0.0,0.35,,none",
    ]


def test_the_sidecar_says_where_the_boxes_come_from(tmp_path):
    target = tmp_path / "boxes.csv"
    write(target, [frame(0), frame(1), frame(0, video="cat/tom.mp4")])
    about = json.loads(sidecar(target).read_text())
    assert sidecar(target).name == "boxes.csv.meta.json"
    assert about["run"] == "pets-001"
    assert about["rows"] == 3
    assert about["videos"] == {
        "dog/rex.mp4": {"frames": 2, "height": 120, "width": 160},
        "cat/tom.mp4": {"frames": 1, "height": 120, "width": 160},
    }


def test_dash_writes_json_lines_to_standard_output_as_they_come(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with open_box_sink("-", metadata={}) as sink:
        sink.write(frame(3, None), size=(120, 160), threshold=0.35)
        line = json.loads(stream.getvalue())
        assert (line["frame"], line["x0"], line["status"]) == (3, None, "none")
        assert tuple(line) == COLUMNS
    assert not stream.closed


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_error_leaves_the_old_table_and_nothing_half_written(tmp_path, suffix):
    target = tmp_path / f"boxes{suffix}"
    write(target, [frame(0)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="lost"):
        write(target, frames_then_an_error())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_table_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "boxes.csv"
    with open_box_sink(str(target), metadata={}) as sink:
        sink.write(frame(0), size=(120, 160), threshold=0.35)
        assert not target.exists()
    assert sorted(path.name for path in target.parent.iterdir()) == ["boxes.csv", "boxes.csv.meta.json"]


@pytest.mark.parametrize(("target", "found"), [("boxes.xlsx", "'.xlsx'"), ("boxes", "no ending")])
def test_an_unknown_ending_lists_the_known_ones(target, found):
    with pytest.raises(ConfigError, match=rf"\.csv, \.jsonl, \.parquet .*- for JSON Lines.*found {found}"):
        open_box_sink(target, metadata={})


def test_a_target_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"^cannot write .*boxes\.csv: .*; free space or choose another folder$"):
        write(tmp_path / "file" / "boxes.csv", [frame(0)])


def frame_on_a_full_disk(folder: Path):
    """Let the open table's descriptor lead to a device that is always full."""
    part = next(folder.glob(".*.part")).resolve()
    descriptor = next(int(link.name) for link in Path("/proc/self/fd").iterdir() if link.resolve() == part)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    os.close(full)
    yield frame(0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match=r"^cannot write .*No space left"):
        write(tmp_path / "boxes.jsonl", frame_on_a_full_disk(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_not_open_takes_no_rows():
    sink = open_box_sink("boxes.csv", metadata={})
    with pytest.raises(ValueError, match="inside its 'with' block"):
        sink.write(frame(0), size=(1, 1), threshold=0.5)


def test_tables_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the box table .*gone\.csv: .*No such file"):
        read_boxes(tmp_path / "gone.csv")
    (tmp_path / "short.csv").write_text("video,frame\na,1\n")
    with pytest.raises(DataError, match="found none called time_s, width"):
        read_boxes(tmp_path / "short.csv")
    for suffix in ("csv", "jsonl", "parquet"):
        (tmp_path / f"broken.{suffix}").write_bytes(b"\x00\x01{\xff")
        with pytest.raises(DataError, match="broken"):
            read_boxes(tmp_path / f"broken.{suffix}")
    with pytest.raises(ConfigError, match="ends in"):
        read_boxes(tmp_path / "boxes.txt")


def test_further_tags_of_a_frame_are_rows_but_no_frames(tmp_path):
    write(tmp_path / "boxes.csv", [frame(0), replace(frame(0), label=0), frame(1), frame(0, video="x.mp4")])
    about = json.loads(sidecar(tmp_path / "boxes.csv").read_text())
    assert about["rows"] == 4
    assert {name: video["frames"] for name, video in about["videos"].items()} == {"dog/rex.mp4": 2, "x.mp4": 1}
