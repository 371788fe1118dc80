import pytest
import torch

from tcam.errors import DataError
from tcam.video.data_folder.clip_tables import BoxConvention, TableBox
from tcam.video.data_folder.scan import assign_splits, scan_background, scan_class_folders


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
    boxes = (TableBox((1, 2, 3, 4), "pixels"), TableBox((0, 0, 9, 9.5), "pixels"))
    assert source.boxes == {("dog/a.mp4", 3): boxes}
    assert source.notes == (("clips.csv", "columns that nothing reads: extra"),)


def test_a_header_in_another_case_is_not_left_out(tmp_path):
    """An ignored column of splits would let test videos into the training."""
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "clips.csv").write_text("Filename;Label;Set\na.mp4;dog;Train\ncat\\b.mp4;cat;Validation\n")
    source = scan_class_folders(tmp_path)
    assert {e.video_id: e.split for e in source.entries} == {"dog/a.mp4": "train", "cat/b.mp4": "val"}
    assert source.notes == ()


def test_splits_alone_may_stand_in_the_table(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "clips.csv").write_text("video,split\ndog/a.mp4,test\n")
    assert [e.split for e in scan_class_folders(tmp_path).entries] == [None, "test"]


def test_folders_may_name_splits(tmp_path):
    lay(tmp_path, "train/dog/a.mp4", "train/cat/b.mp4", "val/dog/c.mp4", "val/cat/d/1.png")
    source = scan_class_folders(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert {e.video_id: e.split for e in source.entries} == {
        "train/cat/b.mp4": "train",
        "train/dog/a.mp4": "train",
        "val/cat/d": "val",
        "val/dog/c.mp4": "val",
    }
    (tmp_path / "clips.csv").write_text("video,class,split\nval/dog/c.mp4,dog,train\n")
    with pytest.raises(DataError, match=r"line 2: split 'train', but val/dog/c.mp4 lies in a folder of 'val'"):
        scan_class_folders(tmp_path)


def test_a_video_that_is_listed_twice_must_be_listed_alike(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "clips.csv").write_text("video,class,split\ndog/a.mp4,dog,train\na.mp4,dog,train\n")
    source = scan_class_folders(tmp_path)
    assert source.notes == (("clips.csv", "1 videos are there twice, alike"),)
    (tmp_path / "clips.csv").write_text("video,class,split\ndog/a.mp4,dog,train\ndog/a.mp4,dog,test\n")
    message = r"clips.csv, line 3: dog/a.mp4 is there twice: class 'dog', split 'test', but 'dog', 'train' in line 2"
    with pytest.raises(DataError, match=message):
        scan_class_folders(tmp_path)


@pytest.mark.parametrize("name", ["clips.csv", "labels.tsv"])
def test_tags_in_a_table_beside_flat_videos(tmp_path, name):
    lay(tmp_path, "a.mp4", "b.mov", "c/1.png", "c/2.png", "d.avi", "cover.jpg")
    rows = [("file", "tag"), ("a.mp4", "dog"), ("b", "cat"), ("c", "dog")]
    (tmp_path / name).write_text("".join(("\t" if name.endswith("tsv") else ",").join(row) + "\n" for row in rows))
    source = scan_class_folders(tmp_path)
    assert [(e.video_id, e.class_name) for e in source.entries] == [("a.mp4", "dog"), ("b.mov", "cat"), ("c", "dog")]
    assert source.files == {"videos": 4, "tables": 1, "masks": 0, "passed over": 2}
    assert [str(group) for group in source.passed] == [
        ".: 1 passed over (no video or picture that is known by its ending): cover.jpg",
        ".: 1 passed over (without a tag, by folder or table): d.avi",
    ]


def test_a_table_of_tags_may_lie_beside_the_folder(tmp_path):
    lay(tmp_path, "videos/a.mp4", "videos/b.mp4")
    (tmp_path / "labels.csv").write_text("video,class\nvideos/a.mp4,dog\nb.mp4,cat\n")
    assert [e.class_name for e in scan_class_folders(tmp_path / "videos").entries] == ["dog", "cat"]


def test_two_tables_of_tags_are_one_too_many(tmp_path):
    lay(tmp_path, "a.mp4", "b.mp4")
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("video,class\na.mp4,dog\nb.mp4,cat\n")
    with pytest.raises(DataError, match=r"several tables of tags \(one.csv, two.csv\): call the right one clips.csv"):
        scan_class_folders(tmp_path)


def test_names_in_either_unicode_form_are_the_same(tmp_path):
    lay(tmp_path, "vo\u0308gel/u\u0308.mp4", "cat/b.mp4")
    (tmp_path / "clips.csv").write_text("video,class,split\nv\u00f6gel/\u00fc.mp4,v\u00f6gel,test\n")
    source = scan_class_folders(tmp_path)
    assert source.class_names == ("cat", "v\u00f6gel")
    assert [e.split for e in source.entries] == [None, "test"]


def test_boxes_that_look_relative_are_asked_about(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\ndog/a.mp4,0,0.1,0.2,0.5,0.9\n")
    with pytest.raises(DataError, match=r"all sides lie within 0\.\.1.*column units.*data\.units=relative"):
        scan_class_folders(tmp_path)
    for units in ("relative", "pixels"):
        (kept,) = scan_class_folders(tmp_path, convention=BoxConvention(units)).boxes.values()
        assert kept == (TableBox((0.1, 0.2, 0.5, 0.9), units),)
    (tmp_path / "boxes.csv").write_text("video,frame,x0,y0,x1,y1,units\ndog/a.mp4,0,0.1,0.2,0.5,0.9,relative\n")
    assert scan_class_folders(tmp_path).boxes == {("dog/a.mp4", 0): (TableBox((0.1, 0.2, 0.5, 0.9), "relative"),)}


def test_frames_may_be_counted_from_1(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "boxes.csv").write_text("video,frame,x,y,w,h\ndog/a.mp4,1,10,20,30,40\n")
    source = scan_class_folders(tmp_path, convention=BoxConvention(first_frame=1))
    assert source.boxes == {("dog/a.mp4", 0): (TableBox((10, 20, 40, 60), "pixels"),)}
    (tmp_path / "boxes.csv").write_text("video,frame,x,y,w,h\ndog/a.mp4,0,10,20,30,40\n")
    with pytest.raises(DataError, match=r"frame 0, but data\.first_frame says that they begin with 1"):
        scan_class_folders(tmp_path, convention=BoxConvention(first_frame=1))


def test_a_class_folder_of_images_is_one_video(tmp_path):
    lay(tmp_path, "dog/1.png", "dog/2.png", "cat/b.mp4")
    assert [e.video_id for e in scan_class_folders(tmp_path).entries] == ["cat/b.mp4", "dog"]


def test_all_files_are_accounted_for(tmp_path):
    lay(
        tmp_path,
        "dog/a.mp4",
        "dog/a.jpg",
        "cat/b/1.png",
        "loose.mp4",
        "notes.txt",
        ".DS_Store",
        ".git/x",
        "masks/x.txt",
    )
    lay(tmp_path, "masks/dog/a/0.png", "boxes.csv", "other.csv")
    (tmp_path / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\n")
    source = scan_class_folders(tmp_path)
    assert source.files == {"videos": 2, "tables": 1, "masks": 1, "passed over": 7}
    assert sum(source.files.values()) == sum(path.is_file() for path in tmp_path.rglob("*"))
    assert sum(group.count for group in source.passed) == 7


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
        ("clips.csv", "video,class,split\ndog/a.mp4,dog,mine", "split must be one of train, val, test, got 'mine'"),
        ("clips.csv", "dogs,cats\na,b", "expected the columns video, class, found dogs, cats"),
        ("clips.csv", "", "expected the columns video, class, found nothing"),
        ("boxes.csv", "video,frame,x0,y0,x1,y1\nx,0,0,0,9,9", r"boxes\.csv, line 2: video 'x' is not in"),
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
    (tmp_path / "clips.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="is not a table of text: save it as CSV in UTF-8"):
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


def test_a_video_with_several_tags_is_listed_once_for_each(tmp_path):
    lay(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    table = "video,class,split\na.mp4,dog,train\nb.mp4,cat,test\na.mp4,cat,train\nc,dog,\n"
    (tmp_path / "clips.csv").write_text(table)
    source = scan_class_folders(tmp_path)
    assert [(e.video_id, e.path.name, e.class_name, e.split) for e in source.entries] == [
        ("cat:a.mp4", "a.mp4", "cat", "train"),
        ("dog:a.mp4", "a.mp4", "dog", "train"),
        ("b.mp4", "b.mp4", "cat", "test"),
        ("c.mp4", "c.mp4", "dog", None),
    ]
    assert source.files["videos"] == 3
    assert source.notes == ()


def test_a_table_may_add_tags_to_that_of_the_folder(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "clips.csv").write_text("video,class\na.mp4,dog\na.mp4,cat\n")
    ids = [entry.video_id for entry in scan_class_folders(tmp_path).entries]
    assert ids == ["cat/b.mp4", "cat:dog/a.mp4", "dog:dog/a.mp4"]
    (tmp_path / "clips.csv").write_text("video,class\na.mp4,cat\n")
    with pytest.raises(DataError, match=r"line 2: class 'cat', but dog/a.mp4 lies in the folder 'dog'"):
        scan_class_folders(tmp_path)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ("a.mp4,dog,train\na.mp4,cat,test\n", "class 'cat', split 'test', but 'dog', 'train' in line 2"),
        ("a.mp4,dog,train\na.mp4,,train\n", "class None, split 'train', but 'dog', 'train' in line 2"),
        ("a.mp4,dog,train\na.mp4,cat,\n", "class 'cat', split None, but 'dog', 'train' in line 2"),
    ],
)
def test_all_tags_of_a_video_are_of_one_split(tmp_path, rows, found):
    lay(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "clips.csv").write_text(f"video,class,split\n{rows}b.mp4,cat,train\n")
    with pytest.raises(DataError, match=rf"line 3: a.mp4 is there twice: {found}"):
        scan_class_folders(tmp_path)


def test_a_box_of_a_video_with_several_tags_says_which_one_it_is_of(tmp_path):
    lay(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "clips.csv").write_text("video,class\na.mp4,dog\na.mp4,cat\nb.mp4,cat\n")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("video,frame,label,x0,y0,x1,y1\na,3,dog,1,2,3,4\na,3,cat,5,6,7,8\na,4,cat,,,,\nb,0,,1,2,3,9\n")
    source = scan_class_folders(tmp_path)
    assert source.boxes == {
        ("dog:a.mp4", 3): (TableBox((1, 2, 3, 4), "pixels"),),
        ("cat:a.mp4", 3): (TableBox((5, 6, 7, 8), "pixels"),),
        ("cat:a.mp4", 4): (),
        ("b.mp4", 0): (TableBox((1, 2, 3, 9), "pixels"),),
    }
    assert source.notes == ()
    for row, found in (
        ("a,3,,1,2,3,4", r"a box of a.mp4 is of one of its tags \('cat', 'dog'\), found no class"),
        ("a,3,bird,1,2,3,4", r"a box of a.mp4 .*found class 'bird'"),
        ("b,3,dog,1,2,3,4", r"a box of b.mp4 is of one of its tags \('cat'\), found class 'dog'"),
    ):
        boxes.write_text(f"video,frame,label,x0,y0,x1,y1\n{row}\n")
        with pytest.raises(DataError, match=rf"boxes.csv, line 2: {found}"):
            scan_class_folders(tmp_path)


def test_where_every_video_has_one_tag_classes_of_boxes_are_not_read(tmp_path):
    lay(tmp_path, "dog/a.mp4", "cat/b.mp4")
    (tmp_path / "boxes.csv").write_text("video,frame,class,x0,y0,x1,y1\na,3,anything,1,2,3,4\n")
    source = scan_class_folders(tmp_path)
    assert list(source.boxes) == [("dog/a.mp4", 3)]
    assert source.notes == (("boxes.csv", "columns that nothing reads: class"),)


def test_masks_of_a_video_with_several_tags_lie_in_a_folder_of_each(tmp_path):
    lay(tmp_path, "a.mp4", "b.mp4", "masks/dog/a/3.png", "masks/cat/a.mp4/3.png", "masks/b/1.png")
    (tmp_path / "clips.csv").write_text("video,class\na.mp4,dog\na.mp4,cat\nb.mp4,cat\n")
    assert scan_class_folders(tmp_path).masks.keys() == {("dog:a.mp4", 3), ("cat:a.mp4", 3), ("b.mp4", 1)}
    lay(tmp_path, "masks/a/3.png")
    with pytest.raises(DataError, match=r"masks/a/3.png: a mask lies in masks/<class>/<video>/"):
        scan_class_folders(tmp_path)
