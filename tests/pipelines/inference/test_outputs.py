import json

import pytest

from pipelines.inference.outputs import (
    check_output_folder,
    check_outputs,
    free_names,
    is_replaceable,
    mark_output_folder,
)
from pipelines.inference.rows import COLUMNS
from tcam.errors import ConfigError
from tcam.video.writer import VideoWriter
from tests.helpers.encoded import encode


def refused(outputs, inputs=()):
    with pytest.raises(ConfigError) as error:
        check_outputs(outputs, inputs, flag="-o")
    return str(error.value)


def test_an_input_by_whatever_path_is_no_output(tmp_path):
    source = tmp_path / "a.mp4"
    source.write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "hard.mp4").hardlink_to(source)
    (tmp_path / "sub").mkdir()
    for path in ("a.mp4", "link.mp4", "hard.mp4", "sub/../a.mp4"):
        message = refused([tmp_path / path], [source])
        assert "would be written over the input" in message, path
        assert message.endswith("choose another folder or name")
    check_outputs([tmp_path / "b.mp4"], [source], flag="-o")


def test_nothing_is_written_into_a_frame_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    assert "written over the input" in refused([tmp_path / "frames" / "frames.mp4"], [tmp_path / "frames"])


@pytest.mark.parametrize(
    ("name", "content", "ours"),
    [
        ("a.csv", ",".join(COLUMNS) + "\n", True),
        ("a.csv", "video,reason\n", True),
        ("a.csv", "", True),
        ("a.csv", "video,frame,x0,y0,x1,y1\n", False),
        ("a.jsonl", json.dumps({"frame": 0, "class_score": 1}), True),
        ("a.jsonl", json.dumps({"end": "source ended"}), True),
        ("a.jsonl", json.dumps({"mine": 1}), False),
        ("a.jsonl", "no json", False),
        ("a.parquet", "no table", False),
        ("a.mp4", "no video", False),
        ("a.onnx", '\x08\x07tcam{"weights_hash": "1"}', True),
        ("a.onnx", "another model", False),
        ("a.bin", "weights of another model", False),
        ("a.txt", "notes", False),
    ],
)
def test_a_file_is_replaced_only_where_tcam_wrote_it(tmp_path, name, content, ours):
    path = tmp_path / name
    path.write_text(content)
    assert is_replaceable(path) == ours
    if not ours:
        assert "exists and was not written by tcam" in refused([path])


def test_videos_that_tcam_drew_are_known(tmp_path):
    import numpy as np

    for drawn in (True, False):
        with VideoWriter(tmp_path / "a.mp4", size=(32, 48), fps=25, drawn=drawn) as writer:
            writer.write(np.zeros((3, 32, 48), np.uint8))
        assert is_replaceable(tmp_path / "a.mp4") == drawn
    assert not is_replaceable(encode(tmp_path / "b.mp4"))


def test_a_folder_of_results_lies_outside_what_is_read(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for folder in (videos, videos / "out" / "eval"):
        with pytest.raises(ConfigError, match=r"which is read: .* choose a folder outside"):
            check_output_folder(folder, ["results.json"], [videos], flag="-o")
    check_output_folder(tmp_path / "out", ["results.json"], [videos], flag="-o")


def test_a_folder_of_results_is_used_again_but_no_other_ones(tmp_path):
    (tmp_path / "results.json").write_text("mine")
    check_output_folder(tmp_path, ["report"], [], flag="-o")
    with pytest.raises(ConfigError, match=r"results\.json exists and was not written by tcam"):
        check_output_folder(tmp_path, ["report", "results.json"], [], flag="-o")
    mark_output_folder(tmp_path)
    check_output_folder(tmp_path, ["report", "results.json"], [], flag="-o")


def test_names_that_would_meet_get_numbers():
    assert free_names(["rex", "rex.mp4", "dog/rex"], ".mp4") == {
        "rex": "rex.mp4",
        "rex.mp4": "rex-2.mp4",
        "dog/rex": "dog/rex.mp4",
    }
    assert free_names(["errors", "b.mp4"], ".csv", reserved=["errors.csv"]) == {
        "errors": "errors-2.csv",
        "b.mp4": "b.mp4.csv",
    }
    assert free_names(["A", "a", "\u00e9", "e\u0301"], ".csv") == {
        "A": "A.csv",
        "a": "a-2.csv",
        "\u00e9": "\u00e9.csv",
        "e\u0301": "e\u0301-2.csv",
    }
