import pytest

from tcam.errors import DataError
from tcam.video.youtube_objects.splits import read_split_lists
from tests.helpers.youtube_objects_tree import write_small_lists


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("test/image_ids.txt", "cat/data/0002/shots/002", "expected a frame of YouTube-Objects v1"),
        ("train/image_ids.txt", "cat/data/0009/shots/002/frame0001.jpg", "expected a shot of YouTube-Objects v1"),
        ("test/image_ids.txt", "whale/data/0002/shots/002/frame0001.jpg", "expected a frame"),
        ("test/image_ids.txt", "../cat/data/0002/shots/002/frame0001.jpg", "expected a frame"),
        ("test/image_ids.txt", "cat/data/0002/shots/002/frame0001.jpg", "is listed twice"),
        ("val/image_ids.txt", "cat/data/0003/shots/002/frame0001.jpg", "is of the train split already"),
        ("test/class_labels.txt", "cat/data/0002/shots/002/frame0001.jpg,3", r"expected class 4 \(cat\), found 3"),
        ("test/class_labels.txt", "cat/data/0002/shots/002/frame0001.jpg,cat", "expected 1 numbers behind the id"),
        ("test/localization.txt", "cat/data/0002/shots/002/frame0001.jpg,1,2,3", "expected 4 numbers"),
        ("test/localization.txt", "cat/data/0099/shots/002/frame0001.jpg,1,2,3,4", "is not in image_ids.txt"),
        ("test/image_sizes.txt", "cat/data/0002/shots/002/frame0001.jpg,0,9", "expected width and height"),
    ],
)
def test_a_line_that_does_not_belong_in_a_list_is_named(tmp_path, file, line, message):
    lists = write_small_lists(tmp_path / "lists", "v1.0")
    with (lists / file).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError, match=message) as raised:
        read_split_lists(lists)
    assert f"{lists / file}, line " in str(raised.value)


def test_lists_that_are_not_whole_are_refused(tmp_path):
    lists = write_small_lists(tmp_path / "lists", "v1.0")
    for name in ("class_labels", "image_sizes", "localization"):
        path = lists / "val" / f"{name}.txt"
        whole = path.read_text()
        path.write_text("".join(whole.splitlines(True)[3:]))
        with pytest.raises(DataError, match=rf"{name}\.txt: expected every id of image_ids\.txt"):
            read_split_lists(lists)
        path.write_text(whole)
    (lists / "test" / "image_ids.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read the split list .*expected train, val and test folders"):
        read_split_lists(lists)
