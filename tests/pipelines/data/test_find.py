import pytest
from PIL import Image

from pipelines.data.find import find_files, find_sources
from tcam.errors import DataError
from tests.tcam.video.data_folder.test_find import lay


def named(source):
    return [item.video_id for item in find_sources(str(source)).sources]


def test_a_file_is_called_by_its_name(tiny_videos):
    path = tiny_videos / "fish" / "fish-00.mp4"
    (only,) = find_sources(str(path)).sources
    assert (only.video_id, only.path, only.live) == ("fish-00.mp4", path, None)


def test_a_folder_of_videos_is_searched_and_they_are_named_below_it(tiny_videos):
    assert named(tiny_videos)[0] == "beetle/beetle-00.mp4"
    assert named(tiny_videos / "fish") == [f"fish-{n:02d}.mp4" for n in range(4)]


def test_a_folder_of_images_is_one_video(tmp_path, monkeypatch):
    lay(tmp_path, "clip/0001.png", "clip/0002.png")
    assert named(tmp_path / "clip") == ["clip"]
    monkeypatch.chdir(tmp_path / "clip")
    assert named(".") == ["clip"]


def test_masks_beside_videos_are_no_videos(tmp_path):
    assert named(lay(tmp_path, "dog/a.mp4", "masks/dog/a/0001.png")) == ["dog/a.mp4"]


def test_pictures_beside_videos_are_counted(tmp_path):
    found = find_sources(str(lay(tmp_path, "dog/a.mp4", "dog/a.jpg", "dog/@eaDir/a.jpg")))
    assert [item.video_id for item in found.sources] == ["dog/a.mp4"]
    assert sum(group.count for group in found.passed) == 2


def test_a_single_picture_is_a_video(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "photo.png")
    assert named(tmp_path / "photo.png") == ["photo.png"]


def test_a_glob_takes_videos_and_frame_folders_but_no_tables(tmp_path):
    lay(tmp_path, "a/1.mp4", "b/1.mp4", "c/2/0001.png", "a/boxes.csv", "a/1.mp4.csv.meta.json")
    assert named(tmp_path / "*" / "*") == ["a/1.mp4", "b/1.mp4", "c/2"]


def test_a_name_with_brackets_is_a_name_first(tmp_path):
    path = tmp_path / "cat [1].mp4"
    path.touch()
    assert named(path) == ["cat [1].mp4"]


def test_an_address_is_a_source_and_keeps_its_secrets():
    (only,) = find_sources("http://me:secret@host:80/dir/a.mp4?key=1").sources
    assert only.live is not None
    assert only.video_id == "http://host:80/dir/a.mp4"
    assert only.output_name == "http_host_80_dir_a.mp4"
    with pytest.raises(DataError, match=r"found the address http://host/a\.mp4"):
        find_files("http://host/a.mp4")


def test_a_text_file_lists_sources(tmp_path):
    lay(tmp_path, "a.mp4", "clips/b.mp4", "clips/c.mp4", "frames/1.png", "frames/2.png")
    (tmp_path / "list.txt").write_text("# mine\n\na.mp4\nclips\nframes\na.mp4\nhttp://host/x.mp4\nabsent.mp4\n")
    found = find_sources(str(tmp_path / "list.txt"))
    assert [item.video_id for item in found.sources] == [
        "a.mp4",
        "clips/b.mp4",
        "clips/c.mp4",
        "frames",
        "http://host/x.mp4",
    ]
    (missing,) = found.missing
    assert missing.video_id == "absent.mp4"
    assert "list.txt, line 8: expected a video file, a folder of videos or a glob, found no such file" in missing.reason


@pytest.mark.parametrize(
    ("content", "message"), [("", "the list is empty"), ("absent.mp4\n", "line 1: expected a video")]
)
def test_a_list_of_nothing_is_said_plainly(tmp_path, content, message):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        find_sources(str(tmp_path / "list.txt"))


def test_a_folder_without_videos_says_what_is_there(tmp_path):
    lay(tmp_path, "a.heic", "b.heic")
    with pytest.raises(
        DataError, match=r"found a folder without videos \(\.: 2 passed over \(no video.*a\.heic, b\.heic"
    ):
        find_sources(str(tmp_path))
    with pytest.raises(DataError, match="found no such file or match"):
        find_sources(str(tmp_path / "x-*.mp4"))
