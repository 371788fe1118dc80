import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tcam.errors import DataError
from tcam.types import Box, FrameRun
from tcam.video.dataset import open_record
from tcam.video.frame_files import FrameFiles
from tcam.video.index import clean_box, read_index, write_index
from tcam.video.youtube_objects.dataset import read_youtube_objects
from tcam.video.youtube_objects.layout import find_youtube_objects
from tests.helpers.youtube_objects_tree import (
    CLASSES,
    read_lists,
    write_ranges,
    write_small_lists,
    write_sticks,
    write_truth,
    write_v1,
    write_v2,
)

LAYOUTS = {"v1.0": "v1.0", "v2.2": "v2.2", "v2.2 sorted": "v2.2"}
# measured on the official lists: per split, videos, items (shots of train, else frames), boxes, items per class
COUNTS = {
    "v1.0": {
        "train": (78, 2768, 0, [545, 91, 301, 41, 109, 85, 621, 179, 265, 531]),
        "val": (50, 325, 347, [57, 28, 41, 55, 27, 31, 17, 27, 32, 10]),
        "test": (27, 346, 396, [84, 27, 37, 33, 33, 21, 37, 31, 27, 16]),
    },
    "v2.2": {
        "train": (76, 1289, 0, [292, 49, 104, 62, 100, 36, 121, 90, 209, 226]),
        "val": (30, 1177, 1177, [14, 112, 49, 468, 90, 154, 87, 73, 98, 32]),
        "test": (49, 1781, 2667, [170, 155, 144, 363, 141, 140, 164, 181, 165, 158]),
    },
}


def write_tree(layout: str, lists: Path, root: Path) -> Path:
    if layout == "v1.0":
        return write_v1(read_lists(lists), root)
    return write_v2(read_lists(lists), root, sorted_tree=layout.endswith("sorted"))


@pytest.fixture(scope="module", params=LAYOUTS)
def small(request, tmp_path_factory):
    """A small tree in every layout, and its lists: (tree, lists, version)."""
    folder = tmp_path_factory.mktemp("yto")
    lists = write_small_lists(folder / "lists", LAYOUTS[request.param])
    return write_tree(request.param, lists, folder / "tree"), lists, LAYOUTS[request.param]


@pytest.fixture
def v1(tmp_path):
    """A small tree of v1.0 that a test may spoil."""
    return write_tree("v1.0", write_small_lists(tmp_path / "lists", "v1.0"), tmp_path / "tree")


@pytest.fixture
def v2(tmp_path):
    """A small flat tree of v2.2 that a test may spoil."""
    return write_tree("v2.2", write_small_lists(tmp_path / "lists", "v2.2"), tmp_path / "tree")


def count(dataset, split: str):
    """Videos, items, boxes and items per class of a split, as method.md counts them."""
    names, records = dataset.index.class_names, dataset.index.of_split(split)
    of_split = {record.video_id for record in records}
    truth = [frame for frame in dataset.truth if frame.video_id in of_split]
    shots = Counter(dict.fromkeys(names, 0))
    for record in records:
        shots[names[record.label]] += len(record.shots)
    frames = Counter(names[frame.label] for frame in truth)
    items = shots if split == "train" else frames
    return len(records), items.total(), sum(len(f.boxes) for f in truth), [items[name] for name in CLASSES]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_tree_has_the_published_counts(layout, shared_data, tmp_path):
    version = LAYOUTS[layout]
    lists = shared_data / "yto_splits" / f"YouTube-Objects-{version}"
    tree = write_tree(layout, lists, tmp_path / "tree")
    for splits in (lists, None):
        dataset = read_youtube_objects(tree, splits=splits)
        assert (dataset.warnings, dataset.failures) == ((), ())
        for split, expected in COUNTS[version].items():
            found = count(dataset, split)
            if split == "train" and splits is None:  # only the data set itself has boxes of those
                found = (*found[:2], 0, found[3])
            assert found == expected, (split, splits)
        assert len({record.video_id for record in dataset.index.records}) == 155
        assert_truth_is_that_of_the_lists(dataset, lists)


def assert_truth_is_that_of_the_lists(dataset, folder: Path) -> None:
    """Find every listed frame by its name, with its size and boxes (clipped), and no other frame of val and test."""
    lists = read_lists(folder)
    records = {record.video_id: record for record in dataset.index.records if record.split != "train"}
    found = {}
    for frame in dataset.truth:
        if frame.video_id in records:
            record = records[frame.video_id]
            path = FrameFiles(Path(record.path), record.runs)[frame.frame_index]
            shot = next(i for i, shot in enumerate(record.shots) if shot.start <= frame.frame_index < shot.stop)
            found[frame.video_id, path.name, tuple(frame.boxes)] = (record.size, shot)
    expected = set()
    for image_id, (width, height) in lists.sizes.items():
        video_id = "/".join(image_id.split("/")[: 3 if "/data/" in image_id else 2])
        boxes = tuple(clean_box(corners, (height, width)) for corners in lists.boxes[image_id])
        expected.add((video_id, image_id.rsplit("/", 1)[1], boxes))
        assert found[video_id, image_id.rsplit("/", 1)[1], boxes][0] == (height, width)
    assert found.keys() == expected


def test_a_small_tree_is_read_by_its_own_files_and_by_lists_alike(small):
    tree, lists, _ = small
    for splits in (lists, None):
        dataset = read_youtube_objects(tree, splits=splits)
        assert (dataset.warnings, dataset.failures) == ((), ())
        assert dataset.index.class_names == ("bird", "cat")
        splits_of = Counter(record.split for record in dataset.index.records)
        if splits is not None or find_youtube_objects(tree)[1] == "v1.0":
            assert splits_of == {"train": 4, "val": 2, "test": 2}
            assert_truth_is_that_of_the_lists(dataset, lists)
    assert "official lists in" in read_youtube_objects(tree, splits=lists).origin


def test_nothing_is_copied_and_the_index_comes_back_from_the_disk(small, tmp_path):
    tree, lists, _ = small
    before = sorted(tree.rglob("*"))
    dataset = read_youtube_objects(tree, splits=lists)
    assert sorted(tree.rglob("*")) == before
    write_index(dataset.index, tmp_path / "index.json")
    assert read_index(tmp_path / "index.json") == dataset.index
    for record in dataset.index.records:
        assert record.decoder == "frames"
        assert all(path.is_file() for path in FrameFiles(Path(record.path), record.runs))
        with open_record(record, (12, 16)) as reader:
            assert reader.read(range(record.num_frames)).shape == (record.num_frames, 3, 12, 16)


def test_a_tree_is_found_in_the_folder_around_it(v1, tmp_path):
    assert find_youtube_objects(v1) == (v1, "v1.0")
    (tmp_path / "around").mkdir()
    v1.rename(tmp_path / "around" / "YouTube-Objects-v1.0")
    assert find_youtube_objects(tmp_path / "around") == (tmp_path / "around" / "YouTube-Objects-v1.0", "v1.0")
    assert find_youtube_objects(tmp_path) is None
    with pytest.raises(DataError, match="holds no YouTube-Objects"):
        read_youtube_objects(tmp_path)


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((1, 2, 30, 40), Box(1, 2, 30, 40)),
        ((-3, -0.5, 30, 40), Box(0, 0, 30, 40)),
        ((30, 40, 1, 2), Box(1, 2, 30, 40)),
        ((0, 2, 70.5, 48.3), Box(0, 2, 64, 48)),
        ((64, 2, 80, 9), None),
        ((-9, 2, 0, 9), None),
        ((5, 5, 5, 9), None),
        ((float("nan"), 0, 5, 9), None),
        ((0, 0, 0, 0), None),
    ],
)
def test_corners_are_ordered_and_clipped_to_the_image(corners, box):
    assert clean_box(corners, (48, 64)) == box


def test_odd_boxes_of_v1_are_repaired_or_named(v1):
    sticks = sorted(v1.glob("cat/data/0002/shots/*/*_sticks.mat"))
    write_sticks(sticks[0], [[-4, -1, 30, 40], [50, 5, 8, 44], [2, 2, 70, 60]])
    write_sticks(sticks[1], [[100, 5, 120, 44]])
    dataset = read_youtube_objects(v1)
    boxes = [frame.boxes for frame in dataset.truth if frame.video_id == "cat/data/0002"]
    assert boxes == [(Box(0, 0, 30, 40), Box(8, 5, 50, 44), Box(2, 2, 64, 48))]
    assert dataset.warnings == (
        ("cat/data/0002", "box (100.0, 5.0, 120.0, 44.0) of frame 003/2 lies outside the image; it is left out"),
    )


def test_cells_may_lie_in_a_column_or_be_empty(v1):
    path = next(v1.glob("cat/data/0002/shots/002/*_sticks.mat"))
    cells = np.empty((3, 1), dtype=object)
    cells[0, 0], cells[1, 0], cells[2, 0] = np.array([[1.0], [2], [30], [40]]), np.zeros((0, 0)), np.array([5, 6, 7, 8])
    scipy.io.savemat(path, {"coor": cells})
    first = next(frame for frame in read_youtube_objects(v1).truth if frame.video_id == "cat/data/0002")
    assert first.boxes == (Box(1, 2, 30, 40), Box(5, 6, 7, 8))
    scipy.io.savemat(path, {"coor": np.array([[1.0, 2, 30, 40]])})
    first = next(frame for frame in read_youtube_objects(v1).truth if frame.video_id == "cat/data/0002")
    assert first.boxes == (Box(1, 2, 30, 40),)


@pytest.mark.parametrize("content", [b"no matlab", b"", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_a_damaged_mat_file_is_named_and_the_rest_is_read(v1, content):
    path = next(v1.glob("cat/data/0002/shots/002/*_sticks.mat"))
    path.write_bytes(content)
    dataset = read_youtube_objects(v1)
    assert [video_id for video_id, _ in dataset.warnings] == ["cat/data/0002"]
    assert path.name in dataset.warnings[0][1]
    assert len([frame for frame in dataset.truth if frame.video_id == "cat/data/0002"]) == 1


def test_empty_shots_are_left_out_and_a_video_without_frames_is_named(v1):
    (v1 / "cat/data/0003/shots/000").mkdir()
    shutil.rmtree(v1 / "cat/data/0004/shots")
    (v1 / "cat/data/0004/shots/001").mkdir(parents=True)
    dataset = read_youtube_objects(v1)
    record = next(record for record in dataset.index.records if record.video_id == "cat/data/0003")
    assert len(record.shots) == 2
    assert [video_id for video_id, _ in dataset.failures] == ["cat/data/0004"]
    assert "no frames" in dataset.failures[0][1]


def test_a_missing_frame_leaves_the_names_of_the_others_as_they_are(v1):
    record = next(r for r in read_youtube_objects(v1).index.records if r.video_id == "cat/data/0003")
    assert record.runs == (FrameRun("004/frame", 4, ".jpg", 1, 3), FrameRun("005/frame", 4, ".jpg", 1, 3))
    (v1 / "cat/data/0003/shots/004/frame0002.jpg").unlink()
    record = next(r for r in read_youtube_objects(v1).index.records if r.video_id == "cat/data/0003")
    assert [FrameFiles(Path("/"), record.runs)[i].name for i in range(2)] == ["frame0001.jpg", "frame0003.jpg"]
    assert [len(shot) for shot in record.shots] == [2, 3]


def test_frames_without_an_image_lose_their_boxes_with_a_word(small, tmp_path):
    tree, lists, _ = small
    copy = shutil.copytree(tree, tmp_path / "tree")
    if (original := tree.with_name("tree-original")).is_dir():
        shutil.copytree(original, tmp_path / "tree-original")
    dataset = read_youtube_objects(copy, splits=lists)
    frame = next(frame for frame in dataset.truth if frame.video_id.startswith("cat"))
    record = next(record for record in dataset.index.records if record.video_id == frame.video_id)
    FrameFiles(Path(record.path), record.runs)[frame.frame_index].unlink()
    for splits in (lists, None):
        spoilt = read_youtube_objects(copy, splits=splits)
        assert len(spoilt.warnings) == 1, splits
        assert "image" in spoilt.warnings[0][1] or "no frame beside it" in spoilt.warnings[0][1]


def test_validation_videos_of_v1_are_drawn_with_the_number_of_the_class(tmp_path):
    import random

    lists = write_small_lists(tmp_path / "lists", "v1.0", classes=("cat",))
    tree = write_tree("v1.0", lists, tmp_path / "tree")
    videos = [f"{number:04d}" for number in range(10, 22)]
    for number in videos:
        shutil.copytree(tree / "cat/data/0001", tree / "cat/data" / number)
    (tree / "cat/sets/train.txt").write_text("\n".join(["0003", *videos]))
    order = [f"cat/data/{number}" for number in videos]
    generator = random.Random(4)
    for _ in range(1000):
        generator.shuffle(order)
    dataset = read_youtube_objects(tree)
    assert {record.video_id for record in dataset.index.of_split("val")} == set(order[:5])
    assert {r.video_id for r in dataset.index.of_split("train")} == {"cat/data/0003", *order[5:]}
    assert [v for v, _ in dataset.warnings] == ["cat/data/0001", "cat/data/0004"]
    assert "in neither sets/train.txt nor sets/test.txt" in dataset.warnings[0][1]


def test_validation_videos_of_v2_are_the_first_three_of_the_ranges(tmp_path):
    lists = write_small_lists(tmp_path / "lists", "v2.2")
    tree = write_tree("v2.2", lists, tmp_path / "tree")
    columns = [(1, 1, 9), (2, 3, 4), (4, 4, 7), (5, 5, 2), (6, 6, 4), (7, 8, 1)]
    shutil.rmtree(tree / "cat")
    for number in range(1, 9):
        (tree / "cat").mkdir(exist_ok=True)
        shutil.copy(next(tree.glob("bird/*.jpg")), tree / "cat" / f"{number:08d}.jpg")
    write_ranges(tree, "cat", columns)
    train = [(f"cat{number:08d}", [[1, 1, 5, 5]]) for number in (1, 2, 4, 5)]
    write_truth(tree, "cat", train, [("cat00000008", [[2, 2, 9, 9], [1, 1, 4, 4]])])
    dataset = read_youtube_objects(tree)
    cats = {r.video_id: r.split for r in dataset.index.records if r.video_id.startswith("cat")}
    names = {9: "val", 4: "val", 7: "val", 2: "train", 1: "test"}
    assert cats == {f"cat/video-{number:04d}": split for number, split in names.items()}
    second = next(record for record in dataset.index.records if record.video_id == "cat/video-0004")
    assert second.runs == (FrameRun("", 8, ".jpg", 2, 2), FrameRun("", 8, ".jpg", 6, 1))
    test = next(frame for frame in dataset.truth if frame.video_id == "cat/video-0001")
    assert (test.frame_index, test.boxes) == (1, (Box(2, 2, 9, 9), Box(1, 1, 4, 4)))


def test_a_frame_of_two_ranges_belongs_to_the_later_one(v2):
    path = v2 / "Ranges" / "ranges_cat.mat"
    ranges = scipy.io.loadmat(path)["ranges"]
    first, second = ranges[:, 4], ranges[:, 5]
    second[0] = first[1]  # the last frame of shot 4 is the first of shot 5 too
    scipy.io.savemat(path, {"ranges": ranges})
    dataset = read_youtube_objects(v2, splits=v2.parent / "lists")
    record = next(record for record in dataset.index.records if record.video_id == "cat/video-0003")
    names = [path.name for path in FrameFiles(Path(record.path), record.runs)]
    assert len(names) == len(set(names))
    shared = names.index(f"{int(first[1]):08d}.jpg")
    assert record.shots[1].start <= shared < record.shots[1].stop


def test_a_video_without_any_box_is_dropped_from_v2(v2):
    write_truth(v2, "cat", [], [("cat00000011", [[1, 1, 5, 5]])])
    dataset = read_youtube_objects(v2)
    assert sum(record.video_id.startswith("cat") for record in dataset.index.records) <= 1


def test_a_video_of_both_parts_is_an_error_in_v1(v1):
    (v1 / "cat/sets/test.txt").write_text("0002\n0003\n")
    with pytest.raises(DataError, match="cat/data/0003 is listed for training and for testing"):
        read_youtube_objects(v1)


def test_a_video_of_both_parts_is_an_error_in_v2(v2):
    frames = [("cat00000021", [[1, 1, 5, 5]])]
    write_truth(v2, "cat", frames, frames)
    with pytest.raises(DataError, match="has boxes for training and for testing"):
        read_youtube_objects(v2)


def test_a_sorted_tree_without_ground_truth_says_what_to_do(tmp_path):
    lists = write_small_lists(tmp_path / "lists", "v2.2")
    tree = write_tree("v2.2 sorted", lists, tmp_path / "tree")
    shutil.rmtree(tmp_path / "tree-original")
    with pytest.raises(DataError, match=r"no GroundTruth folder, nor has tree-original beside it.*import-splits"):
        read_youtube_objects(tree)
    assert len(read_youtube_objects(tree, splits=lists).truth) == 8


def test_some_classes_are_enough_and_lists_of_more_do_no_harm(v1, tmp_path):
    shutil.rmtree(v1 / "bird")
    dataset = read_youtube_objects(v1, splits=tmp_path / "lists")
    assert (dataset.index.class_names, dataset.warnings) == (("cat",), ())
    shutil.rmtree(v1 / "cat/data/0002")
    dataset = read_youtube_objects(v1, splits=tmp_path / "lists")
    assert dataset.warnings == (("cat/data/0002", "in the split lists but not on the disk; left out"),)
    assert not dataset.index.of_split("test")


def test_lists_of_the_other_version_are_refused(v1, tmp_path):
    other = write_small_lists(tmp_path / "other", "v2.2")
    with pytest.raises(DataError, match=r"is YouTube-Objects v1\.0, but the lists of .* are of v2\.2"):
        read_youtube_objects(v1, splits=other)


def test_training_uses_the_listed_shots_only(v1, tmp_path):
    for name in ("image_ids.txt", "class_labels.txt"):
        path = tmp_path / "lists" / "train" / name
        path.write_text(
            "".join(line for line in path.read_text().splitlines(True) if "cat/data/0003/shots/004" not in line)
        )
    dataset = read_youtube_objects(v1, splits=tmp_path / "lists")
    record = next(record for record in dataset.index.records if record.video_id == "cat/data/0003")
    assert [run.prefix for run in record.runs] == ["005/frame"]


def test_an_index_of_runs_is_small(small, tmp_path):
    dataset = read_youtube_objects(small[0], splits=small[1])
    write_index(dataset.index, tmp_path / "index.json")
    stored = json.loads((tmp_path / "index.json").read_text())["records"]
    assert sum(len(entry["runs"]) for entry in stored) <= 2 * sum(len(entry["shots"]) for entry in stored)
