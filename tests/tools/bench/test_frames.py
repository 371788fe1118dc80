"""Frames of videos that tell the number of a frame by its brightness."""

import pytest
import torch

from tests.helpers.encoded import encode


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in ("cat/a.mp4", "cat/b.mp4", "dog/c.mp4", "dog/d.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        encode(folder / name, frames=4 if name == "dog/d.mp4" else 12, size=(64, 64 if name[0] == "c" else 96))
    return folder


def test_frames_are_of_videos_at_equal_steps(bench, videos):
    both = bench.read_frames(videos, 2)
    assert both.shape == (2, 3, 224, 224)
    assert both.dtype == torch.uint8
    every = bench.read_frames(videos, 4)
    assert torch.equal(both, every[[0, 2]])
    assert not torch.equal(every[0], every[2])  # of another size


def test_the_number_counts_frames_and_a_short_video_gives_its_last(bench, videos):
    first, third, late = (
        bench.read_frames(videos, 4, number=number).float().mean(dim=(1, 2, 3)) for number in (0, 2, 9)
    )
    assert (first < third).all()
    assert (third < late).all()
    assert torch.equal(late[3], bench.read_frames(videos, 4, number=3)[3].float().mean())


def test_videos_repeat_where_there_are_too_few(bench, videos):
    six = bench.read_frames(videos, 6)
    assert torch.equal(six[0], six[1])


def test_a_folder_without_videos_is_named(bench, tmp_path):
    with pytest.raises(SystemExit, match=f"in {tmp_path}, found none: name another folder"):
        bench.read_frames(tmp_path, 1)
