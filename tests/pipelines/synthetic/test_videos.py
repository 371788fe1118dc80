from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.synthetic.scene import SyntheticVideo, render_video
from pipelines.synthetic.shapes import CLASSES
from pipelines.synthetic.videos import write_synthetic_videos
from tcam.errors import DataError
from tcam.types import Box
from tests.helpers.synthetic import TINY_CLASSES, TINY_FRAMES


def render(position: int, number: int, frames: int = 24, size: tuple[int, int] = (120, 160)) -> SyntheticVideo:
    scenery, generator = np.random.default_rng(number), np.random.default_rng((number, position + 1))
    return render_video(CLASSES[position], frames=frames, size=size, scenery=scenery, generator=generator)


def overlap(one: Box, other: Box) -> float:
    width = max(0.0, min(one.x1, other.x1) - max(one.x0, other.x0))
    height = max(0.0, min(one.y1, other.y1) - max(one.y0, other.y0))
    areas = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (one, other))
    return width * height / (areas - width * height)


@pytest.fixture(scope="module")
def some_videos() -> list[SyntheticVideo]:
    return [render(position, number) for position in range(len(CLASSES)) for number in range(5)]


def test_the_folder_holds_a_video_per_row_of_clips_csv_and_nothing_else(tiny_videos: Path):
    clips = pd.read_csv(tiny_videos / "clips.csv", dtype=str)
    assert list(clips.columns) == ["video", "class", "split"]
    files = sorted(path.relative_to(tiny_videos).as_posix() for path in tiny_videos.rglob("*.mp4"))
    assert sorted(clips["video"]) == files
    assert all(video.split("/")[0] == tag for video, tag in zip(clips["video"], clips["class"], strict=True))
    expected = {(name, split): n for name in TINY_CLASSES for split, n in (("train", 2), ("val", 1), ("test", 1))}
    assert Counter(zip(clips["class"], clips["split"], strict=True)) == expected


def test_boxes_csv_holds_boxes_inside_the_frame_of_known_videos(tiny_videos: Path):
    boxes = pd.read_csv(tiny_videos / "boxes.csv")
    assert list(boxes.columns) == ["video", "frame", "x0", "y0", "x1", "y1"]
    assert set(boxes["video"]) == set(pd.read_csv(tiny_videos / "clips.csv")["video"])
    assert boxes["frame"].between(0, TINY_FRAMES - 1).all()
    assert not boxes.duplicated(["video", "frame"]).any()
    assert (boxes[["x0", "y0"]] >= 0).all(axis=None)
    assert (boxes[["x1", "y1"]] <= 64).all(axis=None)
    assert (boxes["x0"] < boxes["x1"]).all()
    assert (boxes["y0"] < boxes["y1"]).all()


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(tmp_path: Path, tiny_videos: Path):
    for name, seed in (("again", 0), ("other", 1)):
        write_synthetic_videos(
            tmp_path / name, classes=2, videos_per_class=(2, 1, 1), frames=TINY_FRAMES, size=(64, 64), seed=seed
        )
    for file in ("boxes.csv", "fish/fish-00.mp4", "beetle/beetle-03.mp4"):
        assert (tmp_path / "again" / file).read_bytes() == (tiny_videos / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (tiny_videos / file).read_bytes()


def test_boxes_may_be_listed_for_some_frames_only(tmp_path: Path, tiny_videos: Path):
    options = {"classes": 2, "videos_per_class": (2, 1, 1), "frames": TINY_FRAMES, "size": (64, 64)}
    write_synthetic_videos(tmp_path / "few", **options, box_every=3)
    few, every = (pd.read_csv(root / "boxes.csv") for root in (tmp_path / "few", tiny_videos))
    assert few.equals(every[every["frame"] % 3 == 0].reset_index(drop=True))
    assert 0 < len(few) < len(every)


def test_one_more_class_leaves_the_videos_of_the_others_as_they_were(tmp_path: Path, tiny_videos: Path):
    root = tmp_path / "three"
    write_synthetic_videos(root, classes=3, videos_per_class=(2, 1, 1), frames=TINY_FRAMES, size=(64, 64), seed=0)
    assert (root / "beetle/beetle-02.mp4").read_bytes() == (tiny_videos / "beetle/beetle-02.mp4").read_bytes()


def test_the_scenery_is_the_same_for_every_class_so_it_carries_no_tag():
    fish, beetle = render(0, 3), render(1, 3)
    outside = np.ones(fish.frames.shape[:3], bool)
    for video in (fish, beetle):
        for mask, box in zip(outside, video.boxes, strict=True):
            if box is not None:
                mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = False
    difference = np.abs(fish.frames.astype(int) - beetle.frames)[outside].mean()
    assert difference < 12  # the two differ by noise and flicker of brightness alone
    assert np.abs(fish.frames.astype(int) - render(1, 4).frames)[outside].mean() > 20


def test_the_background_moves_where_the_object_never_was():
    video = render(2, 1)
    assert np.abs(video.frames[0].astype(int) - video.frames[-1]).mean() > 8


def test_truth_covers_the_object_tightly():
    kind, video = CLASSES[0], render(0, 5)
    ink = np.abs(video.frames.astype(int) - np.array(kind.ink)).max(axis=3) < 25
    checked = 0
    for mask, box in zip(ink, video.boxes, strict=True):
        if box is None or mask.sum() < 20:
            continue
        inside = mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)].sum()
        assert inside >= 0.95 * mask.sum()
        checked += 1
    assert checked > 10


def test_the_mark_is_too_small_a_box_for_the_object():
    kind = CLASSES[0]
    overlaps = []
    for number in range(4):
        video = render(0, number)
        ink = np.abs(video.frames.astype(int) - np.array(kind.ink)).max(axis=3) < 40
        for mask, box in zip(ink, video.boxes, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if box is not None and mask.sum() >= 20:
                mark = Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
                overlaps.append(overlap(mark, box))
    assert len(overlaps) > 40
    assert np.mean(overlaps) < 0.3


@pytest.mark.slow
def test_a_box_in_the_centre_is_a_bad_guess(some_videos: list[SyntheticVideo]):
    centre = Box(40, 30, 120, 90)
    hits = [overlap(centre, box) >= 0.5 for video in some_videos for box in video.boxes if box is not None]
    assert len(hits) > 500
    assert np.mean(hits) < 0.15


@pytest.mark.slow
def test_objects_move_a_few_pixels_a_frame_and_change_their_size(some_videos: list[SyntheticVideo]):
    def inner(box: Box) -> bool:
        return box.x0 > 0 and box.y0 > 0 and box.x1 < 160 and box.y1 < 120

    steps, growth = [], []
    for video in some_videos:
        whole = [box for box in video.boxes if box is not None and inner(box)]
        middles = np.array([((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for box in whole])
        if len(whole) > 12:
            steps.append(np.median(np.hypot(*np.diff(middles, axis=0).T)))
            growth.append((whole[-1].x1 - whole[-1].x0) / (whole[0].x1 - whole[0].x0))
    assert len(steps) > 10
    assert 0.8 < np.median(steps) < 4
    assert max(growth) > 1.1
    assert min(growth) < 0.9


@pytest.mark.slow
def test_some_videos_start_or_end_without_the_object_and_the_middle_always_shows_it(some_videos: list[SyntheticVideo]):
    out_of_view = [any(box is None for box in video.boxes) for video in some_videos]
    assert 0 < sum(out_of_view) < len(some_videos) / 2
    assert all(box is not None for video in some_videos for box in video.boxes[10:14])


def test_classes_share_every_body_colour():
    users = Counter(place for kind in CLASSES for place in kind.body_colours)
    assert set(users.values()) == {3}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
def test_an_outline_fills_a_good_part_of_its_extent_and_nothing_beyond(kind):
    assert 1.2 < kind.area() < 4
    u, v = np.meshgrid(np.linspace(-1.5, 1.5, 151), np.linspace(-1.5, 1.5, 151))
    inside = kind.outline(u.astype(np.float32), v.astype(np.float32)) < 1
    assert not inside[(np.abs(u) > 1.05) | (np.abs(v) > 1.05)].any()
    assert kind.outline(*(np.array([part], np.float32) for part in kind.mark_at))[0] < 1


def test_one_frame_and_the_smallest_size_can_be_drawn():
    video = render(4, 0, frames=1, size=(32, 32))
    assert video.frames.shape == (1, 32, 32, 3)
    assert video.frames.dtype == np.uint8
    assert len(video.boxes) == 1


@pytest.mark.parametrize(
    ("frames", "size", "message"),
    [
        (0, (64, 64), "frames must be at least 1, got 0"),
        (8, (63, 64), "size must be even and at least 32 x 32, got 63 x 64"),
        (8, (64, 16), "size must be even and at least 32 x 32, got 64 x 16"),
    ],
)
def test_a_video_that_cannot_be_drawn_is_refused(frames: int, size: tuple[int, int], message: str):
    with pytest.raises(ValueError, match=message):
        render(0, 0, frames=frames, size=size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes must be 2 to 5, got 1"),
        ({"classes": 6}, "classes must be 2 to 5, got 6"),
        ({"videos_per_class": (0, 1, 1)}, "at least"),
        ({"frames": 0}, "frames must be at least 1"),
        ({"box_every": 0}, "box_every must be 1 or more, got 0"),
    ],
)
def test_wrong_counts_are_refused_and_leave_nothing_behind(tmp_path: Path, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        write_synthetic_videos(tmp_path / "videos", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=r"is not empty: .* remove it or name another"):
        write_synthetic_videos(tmp_path, classes=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
