import pytest
import torch

from tcam.errors import DataError
from tcam.types import Box
from tcam.video.folders import assign_splits, scan_background, scan_class_folders


def lay(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folders_are_tags_and_names_stay_text(tmp_path):
    lay(tmp_path, "no/a.mp4", "no/.hidden.mp4", "007/B.MOV", "on/clip/frame0001.jpg", "on/notes.txt", ".git/x.mp4")
    source = scan_class_folders(tmp_path)
    assert source.class_names == ("007", "no", "on")
    assert [(e.video_id, e.class_name, e.split) for e in source.entries] == [
        ("007/B.MOV", "007", None),
        ("no/a.mp4", "no", None),
        ("on/clip", "on", None),
    ]


def test_videos_deeper_down_keep_the_tag_of_the_top_folder(tmp_path):
    source = scan_class_folders(lay(tmp_path, "dog/day1/a.mp4", "cat/b.mp4"))
    assert [(e.video_id, e.class_name) for e in source.entries] == [("cat/b.mp4", "cat"), ("dog/day1/a.mp4", "dog")]


def test_tables_give_splits_and_boxes(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4", "cat/c.mp4")
    (tmp_path / "clips.csv").write_text("\ufeffvideo,class,split,extra\ndog/a.mp4,dog,train,1\ncat/b.mp4,cat,test,2\n")
    (tmp_path / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\ndog/a.mp4,3,1,2,3,4\ndog/a.mp4,3,0,0,9,9.5\n")
    source = scan_class_folders(tmp_path)
    assert {e.video_id: e.split for e in source.entries} == {
        "dog/a.mp4": "train",
        "cat/b.mp4": "test",
        "cat/c.mp4": None,
    }
    assert source.boxes == {("dog/a.mp4", 3): (Box(1, 2, 3, 4), Box(0, 0, 9, 9.5))}


def test_a_row_without_sides_says_that_a_frame_holds_no_object(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\ndog/a.mp4,3,,,,\ndog/a.mp4,4,1,,3,4\n")
    with pytest.raises(DataError, match=r"boxes.csv, line 3: expected a box"):
        scan_class_folders(tmp_path)
    (tmp_path / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\ndog/a.mp4,3,,,,\n")
    assert scan_class_folders(tmp_path).boxes == {("dog/a.mp4", 3): ()}


def test_masks_belong_to_videos_with_or_without_their_suffix_and_are_no_class(tmp_path):
    lay(
        tmp_path,
        "dog/a.mp4",
        "cat/b/frame1.png",
        "masks/dog/a/000012.png",
        "masks/dog/a.mp4/3.png",
        "masks/cat/b/0.png",
    )
    source = scan_class_folders(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert {key: path.name for key, path in source.masks.items()} == {
        ("dog/a.mp4", 12): "000012.png",
        ("dog/a.mp4", 3): "3.png",
        ("cat/b", 0): "0.png",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("masks/dog/c/000012.png", r"000012\.png: a mask lies in masks/<class>/<video>/, and .* holds no such video"),
        ("masks/dog/a/frame12.png", r"frame12\.png: a mask is named after its frame, counted from 0"),
    ],
)
def test_a_mask_that_belongs_nowhere_is_named(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        scan_class_folders(lay(tmp_path, "dog/a.mp4", "cat/b.mp4", name))


def test_no_videos_and_one_class_say_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"holds no videos: expected <class>/<clip>\.mp4 .*, found nothing"):
        scan_class_folders(tmp_path)
    lay(tmp_path, "loose.mp4")
    with pytest.raises(DataError, match=r"found 'loose\.mp4' \(videos must lie in a folder named after their class"):
        scan_class_folders(tmp_path)
    lay(tmp_path, "dog/a.mp4")
    with pytest.raises(DataError, match=r"one class only \('dog'\).*at least two"):
        scan_class_folders(tmp_path)
    with pytest.raises(DataError, match="cannot read the data folder"):
        scan_class_folders(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("clips.csv", "video,class\ndog/x.mp4,dog", r"clips\.csv, line 2: video 'dog/x\.mp4' is not in .*'cat/b\.mp4'"),
        ("clips.csv", "video,class\ndog/a.mp4,cow", r"line 2: class 'cow' has no folder; the classes are 'cat', 'dog'"),
        ("clips.csv", "video,class\ndog/a.mp4,cat", "lies in the folder 'dog'"),
        ("clips.csv", "video,class,split\ndog/a.mp4,dog,dev", "split must be one of train, val, test, got 'dev'"),
        ("clips.csv", "name,tag\na,b", "expected the columns video, class, found name, tag"),
        ("clips.csv", "", "expected the columns video, class, found nothing"),
        ("boxes.csv", "video,frame,x0,y0,x1,y1\nx,0,0,0,1,1", r"boxes\.csv, line 2: video 'x' is not in"),
        (
            "boxes.csv",
            "video,frame,x0,y0,x1,y1\ndog/a.mp4,0,5,0,1,1",
            r"boxes\.csv, line 2: expected a box with x0 < x1",
        ),
    ],
)
def test_a_table_that_does_not_fit_names_file_and_line(tmp_path, table, content, message):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / table).write_text(content)
    with pytest.raises(DataError, match=message):
        scan_class_folders(tmp_path)


def test_a_table_that_is_not_text_is_an_error(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "clips.csv").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(DataError, match="is not a CSV table in UTF-8"):
        scan_class_folders(tmp_path)


def draw(source, seed):
    return assign_splits(source.entries, generator=torch.Generator().manual_seed(seed))


def test_drawn_splits_follow_the_seed_and_keep_training_videos(tmp_path):
    lay(tmp_path, "one/a.mp4", "two/a.mp4", "two/b.mp4", *(f"many/{i}.mp4" for i in range(20)))
    source = scan_class_folders(tmp_path)
    entries = draw(source, 1)
    assert entries == draw(source, 1)
    assert entries != draw(source, 2)
    splits = {name: sorted(e.split for e in entries if e.class_name == name) for name in source.class_names}
    assert splits["one"] == ["train"]
    assert splits["two"] == ["test", "train"]
    assert [splits["many"].count(s) for s in ("train", "val", "test")] == [12, 3, 5]


def test_given_splits_are_kept(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "clips.csv").write_text("video,class,split\ndog/a.mp4,dog,test\n")
    assert {e.video_id: e.split for e in draw(scan_class_folders(tmp_path), 0)} == {
        "cat/b.mp4": "train",
        "dog/a.mp4": "test",
    }


def test_background_videos_have_no_tag_and_names_that_no_tagged_video_has(tmp_path):
    source = scan_background(lay(tmp_path, "a.mp4", "dog/b.mp4", "clip/frame0001.jpg", "notes.txt"))
    assert [(e.video_id, e.class_name, e.split) for e in source.entries] == [
        ("background:a.mp4", "background", "train"),
        ("background:clip", "background", "train"),
        ("background:dog/b.mp4", "background", "train"),
    ]
    assert (source.boxes, source.masks) == ({}, {})
    (only,) = scan_background(tmp_path / "clip").entries
    assert only.path == tmp_path / "clip"


def test_a_background_without_videos_is_said_plainly(tmp_path):
    with pytest.raises(DataError, match=r"expected videos without any object in .*, found none"):
        scan_background(lay(tmp_path, "notes.txt"))
    with pytest.raises(DataError, match=r"found no folder .*notes\.txt"):
        scan_background(tmp_path / "notes.txt")
