import shutil
from pathlib import Path

import pytest
import torch

from pipelines.data.copies import find_copies, other_tags
from pipelines.data.prepare import prepare
from pipelines.data.splits import draw_splits
from pipelines.parallel.placement import Placement
from tcam.errors import DataError
from tcam.types import Box
from tcam.video.data_folder.scan import FolderEntry, assign_splits
from tcam.video.index import has_several_tags, read_index, write_index
from tests.helpers.encoded import encode
from tests.helpers.several_tags import TAGS, write_several_tags


def prepared(root: Path, **options):
    return prepare(root, cache_dir=None, placement=Placement(0), **options)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return write_several_tags(tmp_path_factory.mktemp("several") / "videos")


def test_a_table_with_several_tags_gives_a_record_for_each_video_and_tag(several, tmp_path):
    found = prepared(several)
    assert found.index.class_names == ("beetle", "fish")
    assert [(r.video_id, r.label, r.also, r.split) for r in found.index.records] == [
        ("a.mp4", 1, (), "train"),
        ("b.mp4", 0, (), "train"),
        *(
            (f"{tag}:{name}.mp4", label, (1 - label,), split)
            for name, split in (("c", "train"), ("d", "val"), ("e", "test"))
            for label, tag in enumerate(("beetle", "fish"))
        ),
    ]
    assert [(t.video_id, t.frame_index, t.label, t.boxes) for t in found.truth if ":e" in t.video_id] == [
        ("beetle:e.mp4", 5, 0, (Box(16, 16, 48, 48),)),
        ("fish:e.mp4", 0, 1, (Box(0, 0, 64, 40),)),
        ("fish:e.mp4", 5, 1, (Box(0, 0, 64, 24),)),
    ]
    assert found.split_note.endswith("; 3 with several tags count once for each tag")
    assert found.warnings == ()
    write_index(found.index, tmp_path / "index.json")
    assert read_index(tmp_path / "index.json") == found.index
    assert has_several_tags(found.index)


def test_a_file_is_probed_once_for_all_of_its_tags(several, tmp_path):
    steps = []
    prepare(several, cache_dir=tmp_path / "cache", placement=Placement(0), progress=steps.append)
    assert steps[-1].total == len(TAGS)


def test_one_file_in_two_class_folders_is_a_video_with_two_tags(tmp_path):
    for number, name in enumerate(("cat/0.mp4", "cat/1.mp4", "dog/2.mp4", "dog/3.mp4")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        encode(tmp_path / name, frames=8, size=(64, 64), options={"crf": f"{20 + number}"})
    one_tag = prepared(tmp_path)
    assert not has_several_tags(one_tag.index)
    write_index(one_tag.index, tmp_path / "index.json")
    assert "also" not in (tmp_path / "index.json").read_text()
    shutil.copy(tmp_path / "cat" / "1.mp4", tmp_path / "dog" / "rex.mp4")
    found = prepared(tmp_path)
    assert {r.video_id: r.also for r in found.index.records if r.also} == {"cat/1.mp4": (1,), "dog/rex.mp4": (0,)}
    splits = {r.video_id: r.split for r in found.index.records}
    assert splits["cat/1.mp4"] == splits["dog/rex.mp4"]
    assert [(w.video_id, w.reason) for w in found.warnings] == [
        (
            "dog/rex.mp4",
            "has the same content as cat/1.mp4, tagged 'dog' here and 'cat' there; taken as one video with both tags",
        )
    ]


def test_a_tag_of_all_training_videos_is_refused(tmp_path):
    write_several_tags(tmp_path / "videos")
    table = tmp_path / "videos" / "clips.csv"
    table.write_text(table.read_text().replace("b.mp4,beetle,train", "b.mp4,beetle,train\nb.mp4,fish,train"))
    message = r"class 'fish' is a tag of all 3 training videos in .*videos, so there is nothing to tell it from"
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "videos")
    assert prepared(tmp_path / "videos", for_training=False).index.records


def entries_of(root: Path, **tags: str) -> list[FolderEntry]:
    """Files that hold their names, each with tags separated by commas."""
    found = []
    for name, classes in tags.items():
        (root / name).write_text(name)
        found += [FolderEntry(f"{tag}:{name}", root / name, tag, None) for tag in classes.split(",")]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_tags_of_a_video_share_its_split_and_rare_classes_are_trained(tmp_path, seed):
    """Drawn by its first tag, the only video of the rare class would be a test video for some seeds."""
    entries = entries_of(tmp_path, **{f"v{i}": "ant" for i in range(5)}, shared="ant,rare", other="ant,bee", b="bee")
    copies = find_copies(entries)
    splits = {e.video_id: e.split for e in draw_splits(entries, copies, seed, 0.2, 0.4)}
    assert splits["ant:shared"] == splits["rare:shared"] == "train"
    assert splits["ant:other"] == splits["bee:other"]
    assert other_tags(copies) == {
        "ant:shared": ("rare",),
        "rare:shared": ("ant",),
        "ant:other": ("bee",),
        "bee:other": ("ant",),
    }


@pytest.mark.parametrize("seed", range(5))
def test_with_one_tag_each_the_draw_is_that_of_the_classes(tmp_path, seed):
    entries = entries_of(tmp_path, **{f"v{i}": "ant" for i in range(7)}, **{f"w{i}": "bee" for i in range(4)})
    generator = torch.Generator().manual_seed(seed)
    plain = assign_splits(entries, val_fraction=0.2, test_fraction=0.3, generator=generator)
    assert draw_splits(entries, find_copies(entries), seed, 0.2, 0.3) == plain
