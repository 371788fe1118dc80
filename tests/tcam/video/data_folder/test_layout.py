from pathlib import PurePath

import pytest

from tcam.video.data_folder.layout import read_layout


def layout(*names):
    return read_layout([PurePath(name) for name in names])


def test_the_first_folder_is_the_tag():
    assert layout("dog/a.mp4", "cat/day1/b.mp4", "fish") == [("dog", None), ("cat", None), ("fish", None)]
    assert layout() == []


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "Validation", "testing"), ("TRAIN", "dev", "test")]
)
def test_folders_of_splits_hold_folders_of_classes(names):
    found = layout(*(f"{name}/{tag}/a.mp4" for name in names for tag in ("dog", "cat")))
    assert found == [(tag, split) for split in ("train", "val", "test") for tag in ("dog", "cat")]


def test_folders_of_classes_may_hold_folders_of_splits():
    found = layout("dog/train/a.mp4", "dog/test/b.mp4", "cat/train/c/frames")
    assert found == [("dog", "train"), ("dog", "test"), ("cat", "train")]


def test_train_beside_other_classes_is_a_class():
    assert layout("train/a.mp4", "bird/b.mp4") == [("train", None), ("bird", None)]
    assert layout("train/day1/a.mp4", "bird/day1/b.mp4") == [("train", None), ("bird", None)]
    assert layout("train/a.mp4", "train/b.mp4") == [("train", None), ("train", None)]


def test_videos_right_in_a_folder_of_a_split_have_no_tag():
    assert layout("train/a.mp4", "test/b.mp4") == [(None, "train"), (None, "test")]


def test_tags_are_in_composed_form():
    assert layout("e\u0301l/a.mp4") == [("\u00e9l", None)]
