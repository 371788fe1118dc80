import os

import pytest
from PIL import Image

from tcam.video.data_folder.find import (
    AGAIN,
    BESIDE,
    DEEP,
    HIDDEN,
    INSIDE,
    OTHER,
    RUN,
    find_videos,
    summarize_passed,
)


def lay(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found_in(root, **options):
    found = find_videos(root, **options)
    return [path.relative_to(root).as_posix() for path in found.paths], found


def reasons(found):
    return {(group.folder, group.reason): group.count for group in found.passed}


def count_files(root):
    return sum(len(files) for _, _, files in os.walk(root))


def test_pictures_beside_videos_make_no_frame_folder(tmp_path):
    lay(tmp_path, "a.mp4", "b.mov", "cover.jpg", "a.jpg", "notes.txt")
    paths, found = found_in(tmp_path)
    assert paths == ["a.mp4", "b.mov"]
    assert reasons(found) == {(".", BESIDE): 2, (".", OTHER): 1}
    assert found.taken == 2


def test_a_cover_above_folders_of_frames_is_passed_over(tmp_path):
    lay(tmp_path, "cover.jpg", *(f"clip/{i:03d}.jpg" for i in range(5)))
    paths, found = found_in(tmp_path)
    assert paths == ["clip"]
    assert reasons(found) == {(".", BESIDE): 1}
    assert found.taken == 5


def test_frames_with_maps_of_them_in_a_folder_below_stay_frames(tmp_path):
    lay(
        tmp_path,
        *(f"{i:03d}.jpg" for i in range(5)),
        *(f"flow/{i:03d}.png" for i in range(4)),
        "flow/.x",
        "thumbs/1.jpg",
    )
    paths, found = found_in(tmp_path)
    assert paths == ["."]
    assert reasons(found) == {("flow", INSIDE): 5, ("thumbs", HIDDEN): 1}
    assert found.taken + sum(group.count for group in found.passed) == count_files(tmp_path)


@pytest.mark.parametrize(
    "name", ["@eaDir", ".thumbnails", "#recycle", "__MACOSX", "Thumbs", "$RECYCLE.BIN", "lost+found"]
)
def test_folders_of_storage_devices_are_not_looked_into(tmp_path, name):
    lay(tmp_path, "dog/a.mp4", f"dog/{name}/a.mp4/thumb.jpg", f"dog/{name}/b.mp4")
    paths, found = found_in(tmp_path)
    assert paths == ["dog/a.mp4"]
    assert sum(group.count for group in found.passed) == 2
    assert {group.reason for group in found.passed} == {HIDDEN}


def test_runs_of_tcam_are_no_videos(tmp_path):
    lay(tmp_path, "dog/a.mp4", "runs/x-001/config.yaml", "runs/x-001/env.json", "runs/x-001/report/overlay.mp4")
    paths, found = found_in(tmp_path)
    assert paths == ["dog/a.mp4"]
    assert sum(group.count for group in found.passed if group.reason == RUN) == 3


def test_a_folder_that_is_called_like_a_video_is_one_unless_it_holds_some(tmp_path):
    lay(tmp_path, "broken.mp4/notes.txt", "frames.mp4/1.png", "set.avi/a.mp4")
    assert found_in(tmp_path)[0] == ["broken.mp4", "frames.mp4", "set.avi/a.mp4"]


def test_links_that_lead_back_are_followed_once(tmp_path):
    lay(tmp_path, "dog/a.mp4")
    (tmp_path / "dog" / "again").symlink_to(tmp_path, target_is_directory=True)
    paths, found = found_in(tmp_path)
    assert paths == ["dog/a.mp4"]
    assert reasons(found) == {("dog", AGAIN): 1}


def test_what_lies_too_deep_is_named(tmp_path):
    deep = "/".join("abcdefgh")
    paths, found = found_in(lay(tmp_path, "a.mp4", f"{deep}/b.mp4"))
    assert paths == ["a.mp4"]
    assert [group.reason for group in found.passed] == [DEEP]


def test_files_of_several_pictures_are_videos_wherever_they_lie(tmp_path):
    pages = [Image.new("L", (8, 6), level) for level in (0, 90, 180)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "anim.webp", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "still.webp")
    paths, found = found_in(tmp_path)
    assert paths == ["anim.webp", "stack.tif"]
    assert reasons(found) == {(".", BESIDE): 1}


def test_a_folder_of_single_tiffs_is_one_video(tmp_path):
    for i in range(4):
        Image.new("L", (8, 6), 10 * i).save(tmp_path / f"{i}.tif")
    assert found_in(tmp_path)[0] == ["."]


def test_taken_and_passed_over_add_up_to_what_is_there(tmp_path):
    names = [f"class{c}/clip{v}.mp4" for c in range(10) for v in range(40)]
    names += [f"class{c}/shots/s{s}/frame{i:04d}.jpg" for c in range(10) for s in range(3) for i in range(30)]
    names += [f"class{c}/@eaDir/clip{v}.mp4/SYNO.jpg" for c in range(10) for v in range(20)]
    names += [f"class{c}/clip{v}.jpg" for c in range(10) for v in range(20)]
    names += [f"class{c}/.DS_Store" for c in range(10)] + [
        f"class{c}/._clip{v}.mp4" for c in range(10) for v in range(9)
    ]
    names += [f"class{c}/clip{v}.srt" for c in range(10) for v in range(20)] + ["Thumbs.db", "notes/a.txt"]
    lay(tmp_path, *names)
    assert len(names) > 1900
    paths, found = found_in(tmp_path)
    assert len(paths) == 400 + 30
    assert found.taken == 400 + 900
    assert found.taken + sum(group.count for group in found.passed) == count_files(tmp_path) == len(names)
    line = summarize_passed(found.passed)
    assert line.startswith(f"passed over {len(names) - 1300} files (300 hidden, or of a storage device or viewer; ")
    assert "200 pictures beside videos" in line
    assert len(line) < 400
