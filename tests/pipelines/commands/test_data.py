import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.helpers.file_server import serve
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import SIDE, set_flags, spoil
from tests.helpers.youtube_objects_tree import read_lists, write_small_lists, write_v1, write_v2


@pytest.fixture
def lists(tmp_path):
    return write_small_lists(tmp_path / "lists", "v1.0")


@pytest.fixture
def tree(tmp_path, lists):
    return write_v1(read_lists(lists), tmp_path / "tree")


def pack(tree: Path, folder: Path, *, prefix: str = "") -> Path:
    """Pack every folder of a tree as the hosts do."""
    (folder / prefix).mkdir(parents=True)
    for child in tree.iterdir():
        with tarfile.open(folder / prefix / f"{child.name}.tar.gz", "w:gz", dereference=True) as tar:
            tar.add(child, arcname=child.name)
    return folder


def test_a_data_set_is_fetched_checked_and_kept(tcam, tree, tmp_path):
    packed = pack(tree, tmp_path / "host", prefix="categories")
    with serve() as server:
        server.files = {f"/{p.relative_to(packed).as_posix()}": p.read_bytes() for p in packed.rglob("*.gz")}
        server.drop_after, server.drops_left = 1000, 2
        found = tcam("data", "get", "yto_v1", "--classes", "cat,bird", "--url", server.url)
        assert found.code == 0, found.err
        assert found.out == ""
        assert len(server.requests) == 4
        again = tcam("data", "get", "yto_v1", "--classes", "bird,cat", "--url", server.url)
        assert (again.code, len(server.requests)) == (0, 4)
        missing = tcam("data", "get", "yto_v1", "--classes", "dog", "--url", server.url)
        assert missing.code == 6
        assert "the server says 404" in missing.error
    home = tmp_path / "data" / "yto_v1"
    manifest = json.loads((home / "manifest.json").read_text())
    assert manifest.keys() == {"categories/bird.tar.gz", "categories/cat.tar.gz"}
    assert all(len(entry["sha256"]) == 64 for entry in manifest.values())
    assert not list((home / "archives").iterdir())
    found = tcam("data", "check", "yto_v1", "--json")
    assert found.code == 0
    rows = {row["class"]: row for row in json.loads(found.out)["classes"]}
    assert (rows["cat"]["videos"], rows["cat"]["shots"], rows["cat"]["boxes"]) == (4, 8, 6)
    assert (rows["all"]["train"], rows["all"]["val"], rows["all"]["test"]) == (4, 2, 2)


def test_archives_on_the_disk_are_used_and_a_changed_one_is_refused(tcam, tmp_path):
    lists = write_small_lists(tmp_path / "lists", "v2.2")
    packed = pack(write_v2(read_lists(lists), tmp_path / "tree"), tmp_path / "packed")
    found = tcam("data", "get", "yto_v2.2", "--from", packed, "--classes", "bird,cat")
    assert found.code == 0, found.err
    assert len(list(packed.iterdir())) == 4
    assert tcam("data", "check", "yto_v2.2").code == 0
    shutil.rmtree(tmp_path / "data" / "yto_v2.2" / "YouTube-Objects-v2.2-original" / "cat")
    with tarfile.open(packed / "cat.tar.gz", "w:gz") as tar:
        tar.add(lists, arcname="cat")
    found = tcam("data", "get", "yto_v2.2", "--from", packed, "--classes", "bird,cat")
    assert found.code == 3
    assert "cat.tar.gz is not the file that" in found.error
    found = tcam("data", "get", "yto_v2.2", "--from", packed)
    assert found.code == 3
    assert "expected an unpacked tree or the archive aeroplane.tar.gz, found neither" in found.error


def test_an_unpacked_tree_is_used_where_it_lies(tcam, tree, tmp_path):
    found = tcam("data", "get", "yto_v1", "--from", tree)
    assert found.code == 0, found.err
    assert (tmp_path / "data" / "yto_v1" / "YouTube-Objects-v1.0").resolve() == tree.resolve()
    assert tcam("data", "get", "yto_v1", "--from", tree).code == 0
    found = tcam("data", "get", "yto_v2.2", "--from", tree)
    assert found.code == 3
    assert "it holds YouTube-Objects v1.0, yto_v2.2 is v2.2" in found.error
    by_name, by_folder = tcam("data", "check", "yto_v1", "--json"), tcam("data", "check", tree, "--json")
    assert json.loads(by_name.out)["classes"] == json.loads(by_folder.out)["classes"]


def test_a_tree_sorted_into_shots_is_used_with_the_boxes_beside_it(tcam, tmp_path):
    lists = write_small_lists(tmp_path / "lists", "v2.2")
    tree = write_v2(read_lists(lists), tmp_path / "mine", sorted_tree=True)
    assert tcam("data", "get", "yto_v2.2", "--from", tree).code == 0
    found = tcam("data", "check", "yto_v2.2", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["classes"][-1]["boxes"] > 0


def test_what_cannot_be_had_says_what_to_do(tcam, monkeypatch, tmp_path):
    found = tcam("data", "get", "yto_v3")
    assert (found.code, found.error) == (2, "no data set 'yto_v3': expected one of yto_v1, yto_v2.2")
    assert tcam("data", "get", "yto_v1", "--classes", "whale").code == 2
    assert tcam("data", "get", "yto_v1", "--url", "file:///etc").code == 2
    monkeypatch.setenv("TCAM_OFFLINE", "1")
    found = tcam("data", "get", "yto_v1")
    assert found.code == 6
    assert "TCAM_OFFLINE=1 forbids fetching https://data.vision.ee.ethz.ch/cvl/youtube-objects/cat" in found.error
    for command in (("data", "check"), ("train", "--videos"), ("evaluate", tmp_path, "--videos")):
        found = tcam(*command, "yto_v1")
        assert found.code == 3
    found = tcam("data", "check", "yto_v1")
    assert "fetch it with 'tcam data get yto_v1'" in found.error


def test_imported_lists_are_checked_stored_and_used(tcam, tree, lists, tmp_path):
    found = tcam("data", "import-splits", lists)
    assert found.code == 0, found.err
    assert "yto_v1: 4 train, 2 val, 2 test videos, 8 training shots, 8 annotated frames" in " ".join(found.err.split())
    for data in (tree, "yto_v1"):
        tcam("data", "get", "yto_v1", "--from", tree)
        found = tcam("data", "check", data, "--json")
        assert "official lists in" in json.loads(found.out)["splits"]
    both = tmp_path / "both"
    shutil.copytree(lists, both / "YouTube-Objects-v1.0")
    write_small_lists(both / "YouTube-Objects-v2.2", "v2.2")
    assert tcam("data", "import-splits", both).code == 0
    assert (tmp_path / "data" / "yto_v2.2" / "splits" / "test" / "image_ids.txt").is_file()
    assert tcam("data", "import-splits", lists, "--data", tree).code == 0
    assert (tree / "splits" / "val" / "localization.txt").is_file()
    (lists / "val" / "image_sizes.txt").write_text("")
    assert tcam("data", "import-splits", lists).code == 3
    found = tcam("data", "import-splits", tmp_path)
    assert found.code == 3
    assert "expected train/image_ids.txt" in found.error


def test_a_check_of_own_videos_counts_and_names_the_broken(tcam, videos):
    spoil(videos / "fish")
    found = tcam("data", "check", videos, "--json")
    assert found.code == 4
    content = json.loads(found.out)
    rows = {row["class"]: row for row in content["classes"]}
    assert rows["fish"]["broken"] == 4
    assert (rows["fish"]["videos"], rows["fish"]["frames"], rows["fish"]["rotated"]) == (4, 4 * TINY_FRAMES, 0)
    assert len(content["broken"]) == 4
    assert all(reason for _, reason in content["broken"])
    for column in ("class", "videos", "shots", "frames", "boxes", "rotated", "variable rate", "broken"):
        assert column in found.err


def test_own_boxes_are_clipped_and_those_outside_named(tcam, videos):
    rows = ["video,frame,x0,y0,x1,y1", "fish/fish-03.mp4,0,-5,3,900,20", "fish/fish-03.mp4,1,70,70,90,90"]
    (videos / "boxes.csv").write_text("\n".join(rows))
    found = tcam("data", "check", videos, "--json")
    content = json.loads(found.out)
    assert [row["boxes"] for row in content["classes"]] == [0, 1, 1]
    (warning,) = content["warnings"]
    assert warning[0] == "fish/fish-03.mp4"
    assert "of frame 1 lies outside the image" in warning[1]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1.0", "v2.2"])
def test_youtube_objects_trains_and_evaluates_without_a_copy(tcam, tmp_path, version):
    lists = write_small_lists(tmp_path / "lists", version)
    tree = (write_v1 if version == "v1.0" else write_v2)(read_lists(lists), tmp_path / "tree")
    name = {"v1.0": "yto_v1", "v2.2": "yto_v2.2"}[version]
    assert tcam("data", "get", name, "--from", tree).code == 0
    assert tcam("data", "import-splits", lists).code == 0
    before = sorted(tree.rglob("*"))
    found = tcam("train", "--videos", name, "--runs", tmp_path / "runs", *set_flags())
    assert found.code == 0, found.err
    run = tmp_path / "runs" / f"{name}-tcam-001"
    assert sorted(tree.rglob("*")) == before
    assert not list((tmp_path / "home").rglob("*.mp4"))
    assert len(list((run / "cams").glob("*.npy"))) == 8  # one per training shot
    found = tcam("evaluate", run, "--videos", name, "--split", "test", "-o", tmp_path / "out")
    assert found.code == 0, found.err
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert sum(record["num_frames"] for record in index["records"] if record["split"] == "test") > 4
    found = tcam("predict", run, "--source", tree / "cat" if version == "v1.0" else tree / "bird")
    assert found.code == 0
    assert json.loads(found.out.splitlines()[0])["width"] in (SIDE, 96)


@pytest.mark.slow
def test_evaluation_opens_annotated_frames_only(tcam, tree, lists, tmp_path):
    assert tcam("data", "import-splits", lists, "--data", tree).code == 0
    assert tcam("train", "--videos", tree, "--runs", tmp_path / "runs", *set_flags(), "--method", "cam").code == 0
    for path in sorted(tree.glob("cat/data/0002/shots/003/*.jpg"))[2:]:
        os.truncate(path, 0) if path.stat().st_nlink == 1 else (path.unlink(), path.touch())
    run = next((tmp_path / "runs").iterdir())
    found = tcam("evaluate", run, "--videos", tree, "--split", "test")
    assert found.code == 0, found.err


def test_training_names_a_class_that_has_no_training_video(tcam, tree, lists, tmp_path):
    shutil.rmtree(tree / "cat/data/0003")
    shutil.rmtree(tree / "cat/data/0004")
    tcam("data", "import-splits", lists, "--data", tree)
    found = tcam("train", "--videos", tree, "--runs", tmp_path / "runs", *set_flags())
    assert found.code == 3
    assert "class 'cat' has no usable video in the train split" in found.error
    shutil.rmtree(tree / "cat")
    found = tcam("train", "--videos", tree, "--runs", tmp_path / "runs", *set_flags())
    assert "needs at least two classes, found only 'bird'" in found.error
