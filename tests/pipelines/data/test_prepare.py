import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.data.failures import VideoFailure, write_failures
from pipelines.data.prepare import prepare
from pipelines.parallel.placement import Placement
from tcam.errors import DataError
from tcam.types import Box
from tcam.video.reader import ClipReader, stream_frames
from tests.helpers.encoded import encode


def lay_videos(root: Path) -> Path:
    for name, crf in (("cat", 20), ("dog", 23)):
        (root / name).mkdir(parents=True)
        for number in range(3):
            encode(root / name / f"{number}.mp4", frames=8 + number, size=(64, 96), options={"crf": f"{crf + number}"})
    return root


@pytest.fixture
def videos(tmp_path):
    return lay_videos(tmp_path / "videos")


def test_good_videos_are_indexed_and_bad_ones_are_rows(videos, tmp_path):
    (videos / "dog" / "empty.mp4").touch()
    (videos / "dog" / "text.mp4").write_text("hello")
    os.mkfifo(videos / "cat" / "pipe.mp4")
    (videos / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\ncat/0.mp4,7,1,2,3,4\ncat/0.mp4,9,1,2,3,4\n")
    steps = []
    prepared = prepare(
        videos, cache_dir=tmp_path / "cache", short_side=32, placement=Placement(2), progress=steps.append
    )
    assert [record.video_id for record in prepared.index.records] == [
        f"{name}/{number}.mp4" for name in ("cat", "dog") for number in range(3)
    ]
    assert [failure.video_id for failure in prepared.failures] == ["cat/pipe.mp4", "dog/empty.mp4", "dog/text.mp4"]
    assert all("\n" not in failure.reason and len(failure.reason) <= 300 for failure in prepared.failures)
    assert [(t.video_id, t.frame_index, t.label) for t in prepared.truth] == [("cat/0.mp4", 7, 0)]
    assert "the boxes of 1 frames past the end of their video were dropped" in prepared.split_note
    assert (steps[-1].done, steps[-1].failed, steps[-1].total) == (9, 3, 9)
    assert steps[-1].slowest in {f"{name}/{number}.mp4" for name in ("cat", "dog") for number in range(3)}
    for label in range(2):
        assert "train" in {record.split for record in prepared.index.records if record.label == label}


def test_masks_make_boxes_where_the_table_has_none(videos):
    for name, rows in ("cat/0/2.png", 16), ("cat/0/3.png", 0), ("dog/1/1.png", 4), ("dog/1/99.png", 4):
        pixels = np.zeros((32, 48), np.uint8)  # half the size of the video
        pixels[:rows, 24:] = 255
        (videos / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(videos / "masks" / name)
    (videos / "masks/cat/0/4.png").write_text("no image")
    (videos / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\ndog/1.mp4,1,5,6,7,8\ncat/2.mp4,5,,,,\n")
    prepared = prepare(videos, cache_dir=None, placement=Placement(0))
    found = {(item.video_id, item.frame_index): (item.boxes, Path(item.mask).name) for item in prepared.truth}
    assert found == {
        ("cat/0.mp4", 2): ((Box(48, 0, 96, 32),), "2.png"),
        ("cat/0.mp4", 3): ((), "3.png"),
        ("cat/2.mp4", 5): ((), ""),
        ("dog/1.mp4", 1): ((Box(5, 6, 7, 8),), "1.png"),
    }
    assert "the boxes of 1 frames past the end" in prepared.split_note
    (warning,) = (warning for warning in prepared.warnings if "same content" not in warning.reason)
    assert warning.video_id == "cat/0.mp4"
    assert "4.png: not a readable image" in warning.reason


def test_the_copy_is_small_intra_and_shows_the_same_frames(videos, tmp_path):
    index = prepare(videos, cache_dir=tmp_path / "cache", short_side=32, placement=Placement()).index
    for record in index.records:
        assert record.cache_path is not None
        with av.open(record.cache_path) as container:
            stream = container.streams.video[0]
            assert (stream.height, stream.width, stream.frames) == (32, 48, record.num_frames)
            assert all(packet.is_keyframe for packet in container.demux(stream) if packet.size)
        original = torch.tensor(
            np.stack([frame.pixels for frame in stream_frames(Path(record.path), size=(32, 48))])
        ).float()
        for decoder in ("decord", "pyav"):
            path, num_frames = Path(record.cache_path), record.num_frames
            with ClipReader(path, decoder=decoder, num_frames=num_frames, size=(32, 48)) as reader:
                copied = torch.from_numpy(reader.read(list(range(num_frames))[::-1])).flip(0).float()
            distance = (copied[:, None] - original[None]).abs().mean(dim=(2, 3, 4))
            assert distance.argmin(dim=1).tolist() == list(range(num_frames))
            others = distance[~torch.eye(num_frames, dtype=torch.bool)].min()
            assert distance.diagonal().max() < 0.5 * others


def test_a_rerun_writes_nothing_and_sweeps_leftovers(videos, tmp_path):
    cache = tmp_path / "cache"
    first = prepare(videos, cache_dir=cache, short_side=32, placement=Placement())
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    (cache / ".x.mp4.999999999.tmp").touch()
    assert prepare(videos, cache_dir=cache, short_side=32, placement=Placement()) == first
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def test_small_videos_are_not_scaled_up(videos, tmp_path):
    record = prepare(videos, cache_dir=tmp_path / "cache", short_side=256, placement=Placement()).index.records[0]
    with av.open(str(record.cache_path)) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (64, 96)


def test_without_a_cache_the_originals_are_read(videos):
    index = prepare(videos, cache_dir=None, placement=Placement()).index
    assert {(record.cache_path, record.decoder) for record in index.records} == {(None, "pyav")}


def test_links_out_of_the_data_folder_need_leave(videos, tmp_path):
    outside = encode(tmp_path / "secret.mp4")
    (videos / "dog" / "link.mp4").symlink_to(outside)
    refused = prepare(videos, cache_dir=None, placement=Placement())
    assert [f.video_id for f in refused.failures] == ["dog/link.mp4"]
    assert "link out of the data folder" in refused.failures[0].reason
    assert prepare(videos, cache_dir=None, placement=Placement(), follow_links=True).failures == ()


def test_a_class_without_a_usable_or_training_video_is_an_error(videos, tmp_path):
    for path in (videos / "cat").iterdir():
        path.write_text("broken")
    with pytest.raises(DataError, match=r"no video of the class 'cat' .* can be used \(3 of 6 are broken; cat/0.mp4: "):
        prepare(videos, cache_dir=None, placement=Placement())
    whole = lay_videos(tmp_path / "whole")
    rows = "".join(f"cat/{number}.mp4,cat,test\n" for number in range(3))
    (whole / "clips.csv").write_text(f"video,class,split\n{rows}")
    with pytest.raises(DataError, match="class 'cat' has no usable video in the train split"):
        prepare(whole, cache_dir=None, placement=Placement())


def test_a_cache_that_cannot_be_made_is_said_plainly(videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot use the cache folder"):
        prepare(videos, cache_dir=tmp_path / "file", placement=Placement())


def test_failures_are_a_table(tmp_path):
    write_failures([VideoFailure('a,"b".mp4', "bad; remove it")], tmp_path / "errors.csv")
    assert (tmp_path / "errors.csv").read_text() == 'video,reason\n"a,""b"".mp4",bad; remove it\n'
