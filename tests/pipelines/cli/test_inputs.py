"""What people have: odd folders, pictures, tables, names; no command loses, overwrites or misreads any of it.

(The fixture ``tcam`` of this folder compares every input before and after every command.)
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tcam as package
from pipelines.inference.box_table import read_boxes
from tcam.video.reader import count_frames
from tests.helpers.encoded import encode
from tests.helpers.file_server import serve
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import files_of, read_errors, set_flags

LONG = chr(0x9CE5) * 80


@pytest.fixture
def predict(tcam, tiny_run):
    """Give a function that predicts with the tiny run."""
    return lambda *flags: tcam("predict", tiny_run.folder, "--device", "cpu", "--workers", "0", "--source", *flags)


@pytest.fixture
def clip(tiny_run):
    return tiny_run.videos / "fish" / "fish-03.mp4"


def write_frames(folder, count=3, size=(96, 64), *, suffix="png", name="{:04d}"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", size, (40 * index, 90, 200 - 40 * index)).save(folder / f"{name.format(index)}.{suffix}")
    return folder


def test_videos_are_not_drawn_over_their_sources(predict, clip, tmp_path):
    shutil.copytree(clip.parent, tmp_path / "clips")
    found = predict(tmp_path / "clips", "-o", tmp_path / "b.csv", "--save-video", tmp_path / "clips")
    assert found.code == 2
    assert "would be among the videos to predict next time; choose a folder outside" in found.error
    for source, folder in (
        (tmp_path / "clips" / "fish-03.mp4", "clips"),
        (tmp_path / "clips" / "*.mp4", "clips/../clips"),
    ):
        found = predict(source, "-o", tmp_path / "b.csv", "--save-video", tmp_path / folder)
        assert found.code == 2
        assert "would be written over the input" in found.error
    assert not (tmp_path / "b.csv").exists()


def test_a_stream_is_not_drawn_over_its_source(tcam, tiny_run, clip, tmp_path):
    source = shutil.copy(clip, tmp_path / "a.mp4")
    (tmp_path / "link.mp4").symlink_to(source)
    for target in ("a.mp4", "link.mp4"):
        found = tcam("stream", tiny_run.folder, "--source", source, "--save-video", tmp_path / target, "-q")
        assert found.code == 2
        assert "would be written over the input" in found.error


def test_tables_and_videos_of_somebody_else_stay(predict, clip, tcam, tiny_run, tmp_path):
    (tmp_path / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\nfish-03.mp4,0,1,2,3,4\n")
    (tmp_path / "lines.jsonl").write_text('{"mine": 1}\n')
    encode(tmp_path / "out" / "fish-03.mp4") if (tmp_path / "out").mkdir() is None else None
    kept = files_of(tmp_path)
    assert "boxes.csv exists and was not written by tcam" in predict(clip, "-o", tmp_path / "boxes.csv").error
    assert "was not written by tcam" in predict(clip, "-o", tmp_path / "b.csv", "--save-video", tmp_path / "out").error
    stream = tcam("stream", tiny_run.folder, "--source", clip, "-o", tmp_path / "lines.jsonl", "-q")
    assert (stream.code, "was not written by tcam" in stream.error) == (2, True)
    assert files_of(tmp_path) == kept


def test_own_results_are_replaced(predict, clip, tmp_path):
    for _ in range(2):
        assert predict(clip, "-o", tmp_path / "b.csv", "--save-video", tmp_path / "out").code == 0
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["b.csv", "b.csv.meta.json", "fish-03.mp4"]


def test_results_do_not_go_among_the_videos(tcam, tiny_run, videos, tmp_path):
    for command in (("evaluate", tiny_run.folder, "--videos", videos), ("prepare", videos)):
        found = tcam(*command, "-o", videos / "out")
        assert found.code == 2
        assert "which is read" in found.error
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "index.json").write_text("mine")
        found = tcam(*command, "-o", tmp_path / "mine")
        assert found.code == 2
        assert "index.json exists and was not written by tcam" in found.error
    assert not (videos / "out").exists()


def test_a_frame_folder_and_a_video_of_one_name_get_two_overlays(predict, clip, tmp_path):
    source = tmp_path / "in"
    write_frames(source / "rex", 3)
    shutil.copy(clip, source / "rex.mp4")
    assert predict(source, "-o", f"{tmp_path}/out/", "--save-video", tmp_path / "drawn").code == 0
    assert sorted(files_of(tmp_path / "out")) == [
        "rex.csv",
        "rex.csv.meta.json",
        "rex.mp4.csv",
        "rex.mp4.csv.meta.json",
    ]
    frames = {path.name: count_frames(path) for path in (tmp_path / "drawn").iterdir()}
    assert frames == {"rex.mp4": 3, "rex-2.mp4": TINY_FRAMES}


def test_a_source_called_like_the_list_of_failures_keeps_its_table(predict, clip, tmp_path):
    source = tmp_path / "in"
    write_frames(source / "errors", 3)
    shutil.copy(clip, source / "b.mp4")
    assert predict(source, "-o", f"{tmp_path}/out/").code == 0
    assert len(read_boxes(tmp_path / "out" / "errors-2.csv")) == 3
    (source / "broken.mp4").write_text("no video")
    assert predict(source, "-o", f"{tmp_path}/out/").code == 4
    assert len(read_boxes(tmp_path / "out" / "errors-2.csv")) == 3
    assert set(read_errors(tmp_path / "out" / "errors.csv")) == {"broken.mp4"}
    assert predict(source, "-o", tmp_path / "errors.csv").code == 4
    assert len(read_boxes(tmp_path / "errors.csv")) == 3 + TINY_FRAMES
    assert set(read_errors(tmp_path / "errors-2.csv")) == {"broken.mp4"}


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "b/"])
def test_a_name_that_is_too_long_costs_that_video_alone(predict, clip, tmp_path, folder):
    source = tmp_path / "in"
    (source / folder).mkdir(parents=True)
    for name in ("a.mp4", f"{folder}{LONG}.mp4", "z.mp4"):
        shutil.copy(clip, source / name)
    for flags in ((), ("--save-video", tmp_path / "drawn")):
        found = predict(source, "-o", f"{tmp_path}/out/", *flags)
        assert found.code == 4
        assert {"a.mp4.csv", "z.mp4.csv"} <= set(files_of(tmp_path / "out"))
        (reason,) = read_errors(tmp_path / "out" / "errors.csv").values()
        assert "too long for the file system" in reason
        assert reason.endswith("rename the video")
    assert predict(source, "-o", tmp_path / "b.csv").code == 0


@pytest.mark.slow
def test_a_folder_of_long_names_can_be_trained_on(tcam, clip, tmp_path):
    source = tmp_path / (LONG[:60] + " videos")
    for tag in ("bird", LONG):
        (source / tag).mkdir(parents=True)
        for n in range(2):
            (source / tag / f"{LONG[:-1]}{n}.mp4").write_bytes(clip.read_bytes() + tag[:4].encode())
    found = tcam("train", "--videos", source, "--runs", tmp_path / "runs", "-q", *set_flags())
    assert found.code == 0, found.err


def test_pictures_are_sequences(predict, tmp_path):
    pages = [Image.new("L", (96, 64), level) for level in (0, 60, 120, 180)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "stack.tif", save_all=True, append_images=pages[1:])
    pages[0].convert("RGB").save(
        tmp_path / "in" / "anim.webp", save_all=True, append_images=[p.convert("RGB") for p in pages[1:]]
    )
    pages[0].convert("RGB").save(
        tmp_path / "in" / "anim.gif", save_all=True, append_images=[p.convert("RGB") for p in pages[1:]]
    )
    assert predict(tmp_path / "in", "-o", tmp_path / "b.csv").code == 0
    assert read_boxes(tmp_path / "b.csv")["video"].value_counts().to_dict() == dict.fromkeys(
        ("stack.tif", "anim.webp", "anim.gif"), 4
    )
    pages[0].save(tmp_path / "photo.png")
    assert predict(tmp_path / "photo.png", "-o", tmp_path / "b.csv").code == 0
    assert len(read_boxes(tmp_path / "b.csv")) == 1


@pytest.mark.parametrize("suffix", ["pgm", "jfif", "jp2", "avif"])
def test_frames_in_further_formats(predict, tmp_path, suffix):
    write_frames(tmp_path / "in" / "a", suffix="png")
    folder = tmp_path / "in" / suffix
    folder.mkdir()
    for index in range(3):
        Image.new("L" if suffix == "pgm" else "RGB", (96, 64), 80 * index).save(folder / f"{index}.{suffix}")
    assert predict(tmp_path / "in", "-o", tmp_path / "b.csv").code == 0
    assert set(read_boxes(tmp_path / "b.csv")["video"]) == {"a", suffix}


def test_the_same_picture_in_any_depth_has_the_same_box_and_is_said_once(predict, tmp_path):
    gray = (np.add.outer(np.arange(64), np.arange(96)) * 255 // 160).astype(np.uint8)
    pictures = {"gray8": gray, "gray12": gray.astype(np.uint16) * 16, "gray16": gray.astype(np.uint16) * 257}
    for name, values in pictures.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        for frame in range(2):
            Image.fromarray(values).save(tmp_path / "in" / name / f"{frame}.png")
    (tmp_path / "in" / "float32").mkdir()
    Image.fromarray(gray.astype(np.float32) / 255).save(tmp_path / "in" / "float32" / "0.tif")
    found = predict(tmp_path / "in", "-o", tmp_path / "b.csv")
    assert found.code == 0
    assert found.err.count("gray16: pictures of more than 8 bits: 0 becomes black, 65535 white, in all frames") == 1
    assert found.err.count("more than 8 bits") == 3
    table = read_boxes(tmp_path / "b.csv")
    for side in ("x0", "y0", "x1", "y1"):
        assert table[side].max() - table[side].min() <= 4  # a pixel of the map


@pytest.mark.slow
def test_frames_of_several_sizes_have_boxes_in_their_own_pixels(predict, tcam, tmp_path):
    write_frames(tmp_path / "in" / "clip", 2, (96, 64))
    Image.new("RGB", (480, 320), (80, 90, 120)).save(tmp_path / "in" / "clip" / "0002.png")
    found = predict(
        tmp_path / "in" / "clip", "-o", tmp_path / "b.csv", "--save-video", tmp_path / "out", "--threshold", "0"
    )
    assert found.code == 0, found.err
    table = read_boxes(tmp_path / "b.csv")
    assert table[["width", "height", "x1", "y1"]].values.tolist() == [[96, 64, 96, 64]] * 2 + [[480, 320, 480, 320]]
    assert count_frames(tmp_path / "out" / "clip.mp4") == 3
    for tag in ("dog", "cat"):
        shutil.copytree(tmp_path / "in" / "clip", tmp_path / "data" / tag / "clip")
        write_frames(tmp_path / "data" / tag / "good", 2)
    found = tcam("data", "check", tmp_path / "data")
    assert found.code == 4
    assert "broken dog/clip: " in found.err
    assert "frames of several sizes: 96 x 64, 0002.png has 480 x 320; give each size a folder of its own" in " ".join(
        found.err.split()
    )


def test_pictures_beside_videos_are_named_once(predict, clip, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(clip.parent, source)
    for name in ("cover.jpg", "@eaDir/fish-00.mp4/SYNO.jpg", ".thumbnails/a.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(source / name)
    found = predict(source, "-o", tmp_path / "b.csv")
    assert found.code == 0
    assert (
        found.err.count("passed over 3 files (2 hidden, or of a storage device or viewer; 1 pictures beside videos)")
        == 1
    )
    assert read_boxes(tmp_path / "b.csv")["video"].nunique() == 4


def test_a_list_an_address_and_a_track(predict, clip, tmp_path):
    shutil.copy(clip, tmp_path / "a.mp4")
    with serve() as server:
        server.files = dict.fromkeys(("/door/b.mp4", "/door/b.mp4?key=secret"), clip.read_bytes())
        (tmp_path / "list.txt").write_text(
            f"a.mp4\n# no\n{server.url}/door/b.mp4?key=secret\n{server.url}/absent.mp4\nc.mp4\n"
        )
        found = predict(tmp_path / "list.txt", "-o", tmp_path / "b.csv", "--track", "--class", "fish")
        assert found.code == 4
        assert predict(f"{server.url}/door/b.mp4", "-o", f"{tmp_path}/out/").code == 0
    table = read_boxes(tmp_path / "b.csv")
    names = ["a.mp4", f"{server.url}/door/b.mp4"]
    assert table["video"].value_counts().to_dict() == dict.fromkeys(names, TINY_FRAMES)
    first, second = (table[table["video"] == name].drop(columns="video").reset_index(drop=True) for name in names)
    assert first["track_id"].notna().all()
    assert first["track_id"].iloc[0] == 1
    assert first["frame"].tolist() == second["frame"].tolist()
    assert "secret" not in found.err
    errors = read_errors(tmp_path / "errors.csv")
    assert set(errors) == {"c.mp4", f"{server.url}/absent.mp4"}
    (only,) = (tmp_path / "out").glob("*.csv")
    assert only.name.startswith("http_127.0.0.1_")
    assert len(read_boxes(only)) == TINY_FRAMES


def lay_classes(root, clip, *, tags=("bird", "car"), count=3):
    for tag in tags:
        (root / tag).mkdir(parents=True)
        for n in range(count):
            content = clip.read_bytes() + b"\0" * n + tag.encode()
            (root / tag / f"v{n}.mp4").write_bytes(content)
    return root


def checked(tcam, root, *flags):
    found = tcam("data", "check", root, "--json", "-q", *flags)
    return found.code, json.loads(found.out) if found.out else found.error


@pytest.mark.parametrize("header", ["video,class,Split", "Filename;Label;set", "video\tclass\tsplit"])
def test_splits_are_the_tables_however_it_is_written(tcam, clip, tmp_path, header):
    root = lay_classes(tmp_path / "data", clip)
    mark = next(mark for mark in ",;\t" if mark in header)
    rows = [
        mark.join((f"{tag}/v{n}.mp4", tag, ("train", "val", "test")[n])) for tag in ("bird", "car") for n in range(3)
    ]
    (root / "clips.csv").write_text("\n".join([header, *rows]) + "\n")
    code, content = checked(tcam, root)
    assert code == 0
    assert content["splits"] == "2 train, 2 val, 2 test videos (as its folders or tables say)"


@pytest.mark.slow
def test_one_content_under_two_tags_or_in_two_splits_is_reported(tcam, clip, tmp_path):
    root = lay_classes(tmp_path / "data", clip)
    shutil.copy(root / "bird" / "v0.mp4", root / "car" / "v0.mp4")
    shutil.copy(root / "bird" / "v1.mp4", root / "bird" / "v2.mp4")
    rows = [f"{tag}/v{n}.mp4,{tag},{('train', 'train', 'test')[n]}" for tag in ("bird", "car") for n in range(3)]
    (root / "clips.csv").write_text("\n".join(["video,class,split", *rows]) + "\n")
    code, content = checked(tcam, root)
    assert code == 0
    assert dict(content["warnings"]) == {
        "car/v0.mp4": "has the same content as bird/v0.mp4, tagged 'car' here and 'bird' there; "
        "taken as one video with both tags",
        "bird/v2.mp4": "has the same content as bird/v1.mp4, in the test split here and in train there; "
        "keep one of them",
    }


def test_copies_are_drawn_into_one_split(tcam, clip, tmp_path):
    root = lay_classes(tmp_path / "data", clip, count=6)
    for n in range(1, 4):
        shutil.copy(root / "bird" / "v0.mp4", root / "bird" / f"v{n}.mp4")
    code, content = checked(tcam, root)
    assert code == 0
    assert [reason for _, reason in content["warnings"]] == ["has the same content as bird/v0.mp4"] * 3
    assert content["classes"][0]["train"] >= 1


def test_a_class_of_copies_alone_can_be_trained_on(tcam, clip, tmp_path):
    root = lay_classes(tmp_path / "data", clip)
    for tag in ("bird", "car"):
        for n in (1, 2):
            shutil.copy(root / tag / "v0.mp4", root / tag / f"v{n}.mp4")
    assert [row["train"] for row in checked(tcam, root)[1]["classes"]] == [3, 3, 6]


def test_relative_boxes_are_asked_about_and_taken_at_their_word(tcam, clip, tmp_path):
    root = lay_classes(tmp_path / "data", clip)
    (root / "boxes.csv").write_text("video,frame,x0,y0,x1,y1\nbird/v0.mp4,0,0.25,0.5,0.5,1\n")
    code, error = checked(tcam, root)
    assert code == 3
    assert "data.units=relative" in error
    assert checked(tcam, root, "--set", "data.units=relative")[1]["classes"][0]["boxes"] == 1
    found = tcam("prepare", root, "-o", tmp_path / "out", "--workers", "0", "--set", "data.units=relative", "-q")
    assert found.code == 0, found.err
    (row,) = (tmp_path / "out" / "truth.csv").read_text().splitlines()[1:]
    video, frame, *sides = row.split(",")[:6]
    x0, y0, x1, y1 = map(float, sides)
    assert (video, frame, x0 * 2, y0 * 2) == ("bird/v0.mp4", "0", x1, y1)
    assert x1 > 1


def test_settings_of_other_videos_need_other_videos(tcam, tiny_run):
    found = tcam("evaluate", tiny_run.folder, "--set", "data.units=relative")
    assert (found.code, "name them, or leave it out" in found.error) == (2, True)


@pytest.mark.slow
def test_frames_counted_from_1_are_asked_about(tcam, clip, tmp_path):
    root = lay_classes(tmp_path / "data", clip)
    rows = [f"bird/v0.mp4,{frame},1,2,30,40" for frame in range(1, TINY_FRAMES + 1)]
    (root / "boxes.csv").write_text("\n".join(["video,frame,xmin,ymin,xmax,ymax", *rows]) + "\n")
    code, error = checked(tcam, root)
    assert code == 3
    assert "frames seem to be counted from 1" in error
    assert "set data.first_frame=1" in error
    for first, kept in ((1, TINY_FRAMES), (0, TINY_FRAMES - 1)):
        assert checked(tcam, root, "--set", f"data.first_frame={first}")[1]["classes"][0]["boxes"] == kept


def test_a_check_accounts_for_every_file(tcam, clip, tmp_path):
    root = lay_classes(tmp_path / "data", clip)
    for name in ("bird/cover.jpg", "bird/@eaDir/v0.mp4/a.jpg", ".DS_Store", "notes.txt", "car/v0.srt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    code, content = checked(tcam, root)
    assert code == 0
    assert content["files"] == {"videos": 6, "tables": 0, "masks": 0, "passed over": 5}
    assert sum(group["count"] for group in content["passed over"]) == 5
    shown = tcam("data", "check", root)
    assert "bird: 1 passed over (pictures beside videos): cover.jpg" in shown.err


def test_doubles_and_gaps_of_frames_are_reported(tcam, tmp_path):
    for tag in ("bird", "car"):
        folder = write_frames(tmp_path / "data" / tag / "clip", 6)
    (folder / "0003.png").unlink()
    Image.open(folder / "0001.png").save(folder / "0001.jpg")
    code, content = checked(tcam, tmp_path / "data")
    assert code == 0
    rows = {row["class"]: row["frames"] for row in content["classes"]}
    assert (rows["bird"], rows["car"]) == (6, 5)
    ((video, reason),) = content["warnings"]
    assert video == "car/clip"
    assert reason == "1 frame number missing (first after 0002.png); 1 in another format passed over (0001.jpg)"


def test_a_link_out_of_the_folder_names_the_setting(tcam, clip, tmp_path):
    root = lay_classes(tmp_path / "data", clip)
    shutil.copy(clip, tmp_path / "far.mp4")
    (root / "bird" / "far.mp4").symlink_to(tmp_path / "far.mp4")
    code, content = checked(tcam, root)
    assert code == 4
    assert "or set data.follow_links=true" in content["broken"][0][1]
    assert checked(tcam, root, "--set", "data.follow_links=true")[0] == 0


def test_a_run_inside_the_data_folder_is_no_class(tcam, clip, tiny_run, tmp_path):
    root = lay_classes(tmp_path / "data", clip)
    shutil.copytree(tiny_run.folder, root / "runs" / "tiny-001")
    code, content = checked(tcam, root)
    assert code == 0
    assert [row["class"] for row in content["classes"]] == ["bird", "car", "all"]


def test_other_lists_of_splits_are_not_replaced(tcam, tmp_path):
    from tests.helpers.youtube_objects_tree import write_small_lists

    lists = write_small_lists(tmp_path / "lists", "v1.0")
    for _ in range(2):
        assert tcam("data", "import-splits", lists).code == 0
    (tmp_path / "data" / "yto_v1" / "splits" / "val" / "image_ids.txt").write_text("mine\n")
    found = tcam("data", "import-splits", lists)
    assert found.code == 3
    assert "holds other lists" in found.error


def test_the_module_is_the_command_and_has_a_version():
    shown = subprocess.run([sys.executable, "-m", "tcam", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == package.__version__
    code = (
        "import runpy, sys\nsys.argv = ['tcam', '--help']\ntry:\n    runpy.run_module('tcam', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_results_name_their_class(tiny_run, clip):
    found = package.predict(clip, run=tiny_run.folder)
    assert {box.class_name for box in found} <= {"beetle", "fish"}
    assert all(box.class_name == ("beetle", "fish")[box.label] for box in found)
    assert found[0].to_supervision().data["class_name"].tolist() == [found[0].class_name]
