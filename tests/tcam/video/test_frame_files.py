from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcam.errors import VideoError
from tcam.types import FrameRun, Shot, VideoRecord
from tcam.video.dataset import open_record, stream_original
from tcam.video.frame_files import FrameFiles, ImageSequence, number_runs
from tcam.video.reader import stream_frames
from tests.helpers.encoded import encode


def test_numbered_names_become_few_runs_in_order_of_their_numbers():
    names = [f"frame{n:04d}.jpg" for n in (3, 1, 2, 9, 10)] + [
        "frame0002.jpg_sticks.mat",
        "notes.txt",
        ".frame0004.jpg",
    ]
    assert number_runs(names, folder="052/") == (
        FrameRun("052/frame", 4, ".jpg", 1, 3),
        FrameRun("052/frame", 4, ".jpg", 9, 2),
    )
    assert number_runs(f"{n}.png" for n in range(8, 12)) == (FrameRun("", 1, ".png", 8, 4),)
    assert number_runs(["frame9999.jpg", "frame10000.jpg"]) == (FrameRun("frame", 4, ".jpg", 9999, 2),)
    assert number_runs([]) == ()


def test_names_that_only_look_alike_do_not_share_a_run():
    runs = number_runs(["a1.jpg", "a02.jpg", "b3.jpg", "50%{0}4.jpg"])
    assert [run.count for run in runs] == [1, 1, 1, 1]
    assert {run.name(0) for run in runs} == {"a1.jpg", "a02.jpg", "b3.jpg", "50%{0}4.jpg"}


def test_files_of_runs_are_counted_through():
    files = FrameFiles(Path("/d"), [FrameRun("a/", 2, ".jpg", 9, 2), FrameRun("b/f", 1, ".png", 0, 3)])
    names = ["/d/a/09.jpg", "/d/a/10.jpg", "/d/b/f0.png", "/d/b/f1.png", "/d/b/f2.png"]
    assert [str(path) for path in files] == [str(files[i]) for i in range(5)] == names
    assert len(files) == 5
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            files[outside]


@pytest.fixture
def record(tmp_path):
    """Two shots in two folders; the red level of a frame is ten times its index."""
    for index, name in enumerate(("1/frame0001.png", "1/frame0002.png", "2/frame0007.png", "2/frame0008.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (index * 10, 0, 0)).save(tmp_path / name)
    return VideoRecord(
        video_id="dog/data/0001",
        path=str(tmp_path),
        label=0,
        num_frames=4,
        size=(30, 40),
        fps=25.0,
        split="train",
        shots=(Shot(0, 2), Shot(2, 4)),
        decoder="frames",
        runs=(FrameRun("1/frame", 4, ".png", 1, 2), FrameRun("2/frame", 4, ".png", 7, 2)),
    )


def test_a_video_of_several_folders_is_read_by_index_and_in_order(record):
    with open_record(record, (15, 20)) as reader:
        assert reader.read([3, 0, 2])[:, 0, 0, 0].tolist() == [30, 0, 20]
    frames = list(stream_original(record, size=(15, 20), keep_original=True))
    assert [(f.index, int(f.pixels[0, 0, 0]), f.original_size) for f in frames] == [
        (i, 10 * i, (30, 40)) for i in range(4)
    ]


def test_only_the_frames_asked_for_are_opened(record):
    for spoilt in ("1/frame0001.png", "2/frame0008.png"):
        (Path(record.path) / spoilt).write_text("no image")
    frames = list(stream_original(record, size=(15, 20), only={2, 1}))
    assert [(f.index, int(f.pixels[0, 0, 0]), f.time_s) for f in frames] == [(1, 10, 1 / 25), (2, 20, 2 / 25)]
    with pytest.raises(VideoError, match=r"frame0001\.png"):
        list(stream_original(record, size=(15, 20)))


def test_a_file_gives_the_frames_asked_for_and_no_more(tmp_path):
    path = encode(tmp_path / "a.mp4")
    whole = [frame.pixels for frame in stream_frames(path)]
    some = list(stream_frames(path, only=[7, 3]))
    assert [frame.index for frame in some] == [3, 7]
    assert np.array_equal(some[1].pixels, whole[7])
    assert list(stream_frames(path, only=[])) == []


def test_a_frame_that_is_there_twice_is_read_once(tmp_path):
    for index in range(3):
        for suffix in ("jpg", "png"):
            Image.new("RGB", (40, 30), (0, 80 * index, 90)).save(tmp_path / f"{index:04d}.{suffix}")
    images = ImageSequence(tmp_path)
    assert [images.name(i) for i in range(len(images))] == ["0000.png", "0001.png", "0002.png"]
    assert images.notes() == (images.order.note,)
    assert "0000.jpg" in images.order.note


def test_photographs_and_masks_of_one_name_are_not_taken_for_each_other(tmp_path):
    Image.new("RGB", (40, 30), (200, 80, 90)).save(tmp_path / "0000.jpg")
    Image.new("L", (40, 30), 0).save(tmp_path / "0000.png")
    with pytest.raises(VideoError, match=r"0000\.png and 0000\.jpg are two different pictures; give"):
        ImageSequence(tmp_path)
