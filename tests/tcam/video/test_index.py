from dataclasses import replace

import pytest

from tcam.errors import DataError
from tcam.types import Box, FrameRun, FrameTruth, Shot, VideoIndex, VideoRecord
from tcam.video.index import read_index, read_truth, validate_index, write_index, write_truth

RECORD = VideoRecord(
    video_id='no/ä "x".mp4',
    path="/data/no/x.mp4",
    label=1,
    num_frames=10,
    size=(240, 427),
    fps=30000 / 1001,
    split="train",
    shots=(Shot(0, 4), Shot(4, 10)),
    decoder="decord",
    rotation=90,
    cache_path="/cache/x.mp4",
)
INDEX = VideoIndex(("007", "no"), (RECORD, replace(RECORD, video_id="007/y.mp4", label=0, cache_path=None)))


def test_an_index_is_read_as_it_was_written(tmp_path):
    write_index(INDEX, tmp_path / "index.json")
    assert read_index(tmp_path / "index.json") == INDEX


def test_image_files_of_a_video_take_one_entry_per_run(tmp_path):
    runs = (FrameRun("1/frame", 4, ".jpg", 1, 4), FrameRun("2/frame", 4, ".jpg", 7, 6))
    index = replace(INDEX, records=(replace(RECORD, decoder="frames", runs=runs),))
    write_index(index, tmp_path / "index.json")
    assert read_index(tmp_path / "index.json") == index
    assert (
        '"runs": [["1/frame", 4, ".jpg", 1, 4], ["2/frame", 4, ".jpg", 7, 6]]' in (tmp_path / "index.json").read_text()
    )


def test_boxes_are_read_as_they_were_written(tmp_path):
    boxes = (Box(0.1, 1 / 3, 20, 30.7), Box(1, 2, 3, 4))
    truth = (
        FrameTruth("007/y.mp4", 2, 0, boxes[1:]),
        FrameTruth(RECORD.video_id, 7, 1, boxes, "/data/masks/a, b/7.png"),
        FrameTruth(RECORD.video_id, 8, 1, ()),
    )
    write_truth(truth, tmp_path / "boxes.csv")
    assert read_truth(tmp_path / "boxes.csv", INDEX) == truth


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "label 2 is not one of 2 classes"),
        ({"num_frames": 9}, "a shot ends after frame 8"),
        ({"shots": ()}, "no shots"),
        ({"shots": (Shot(0, 5), Shot(4, 10))}, "overlap"),
        ({"split": "dev"}, "split 'dev' is not one of train, val, test"),
        ({"decoder": "magic"}, "decoder 'magic'"),
        ({"fps": 0.0}, "frames per second"),
        ({"rotation": 45}, "rotation 45"),
        ({"decoder": "frames", "runs": (FrameRun("", 4, ".jpg", 1, 9),)}, "its image files do not add up"),
        ({"runs": (FrameRun("", 4, ".jpg", 1, 10),)}, "image files with the decoder 'decord'"),
        ({"video_id": "007/y.mp4"}, "twice"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        validate_index(replace(INDEX, records=(replace(RECORD, **change), INDEX.records[1])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "version 1, got None"),
        ('{"version": 2}', "version 1, got 2"),
        ('{"version": 1, "class_names": ["a"], "records": [{}]}', "damaged"),
        ('{"version": 1, "class_names": ["a"], "records": [{"size": [1, 2], "shots": [[0, 1]], "x": 1}]}', "damaged"),
    ],
)
def test_a_foreign_file_is_no_index(tmp_path, content, message):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_index(tmp_path / "index.json")
    with pytest.raises(DataError, match="run prepare first"):
        read_index(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("who.mp4,0,0,0,1,1", "line 2: video 'who.mp4' is not in the index"),
        ("007/y.mp4,-1,0,0,1,1", "frame must be a whole number"),
        ("007/y.mp4,1.5,0,0,1,1", "frame must be a whole number"),
        ("007/y.mp4,1,3,0,1,1", "x0 < x1"),
        ("007/y.mp4,1,nan,0,1,1", "x0 < x1"),
        ("007/y.mp4,1,left,0,1,1", "x0 < x1"),
    ],
)
def test_a_wrong_row_of_boxes_is_named(tmp_path, row, message):
    (tmp_path / "boxes.csv").write_text(f"video,frame,x0,y0,x1,y1\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_truth(tmp_path / "boxes.csv", INDEX)


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AttributeError):
        write_truth([FrameTruth("007/y.mp4", 0, 0, ()), None], tmp_path / "boxes.csv")
    with pytest.raises(DataError, match="cannot write"):
        write_index(INDEX, tmp_path / "file" / "index.json")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
