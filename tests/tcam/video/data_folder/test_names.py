from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcam.errors import DataError
from tcam.video.data_folder.names import VideoNames

ROOT = Path("/data/videos")
IDS = ("dog/rex.mp4", "dog/Bello.MP4", "cat/tom", "cat/tom.v2", "cat/deep/mia.final.avi")
NAMES = VideoNames(ROOT, IDS)


@pytest.mark.parametrize(
    ("video_id", "texts"),
    [
        (
            "dog/rex.mp4",
            [
                *("dog/rex.mp4", "./dog/rex.mp4", "/dog/rex.mp4", "dog//rex.mp4", "dog\\rex.mp4", ".\\dog\\rex.mp4"),
                *("/data/videos/dog/rex.mp4", "videos/dog/rex.mp4", "../videos/dog/rex.mp4"),
                *("C:\\mine\\videos\\dog\\rex.mp4", "dog/rex", "videos/dog/rex", "rex.mp4", "rex"),
                *("DOG/REX.MP4", "Dog/Rex", "REX.mp4", "Rex", "/data/videos/Dog/rex.mp4"),
            ],
        ),
        ("dog/Bello.MP4", ["dog/Bello", "Bello", "bello.mp4", "bello"]),
        ("cat/tom", ["cat/tom", "cat/tom/", "tom", "TOM", "videos\\cat\\tom"]),
        ("cat/tom.v2", ["cat/tom.v2", "tom.v2"]),
        ("cat/deep/mia.final.avi", ["cat/deep/mia.final", "mia.final.avi", "mia.final"]),
        (None, ["", ".", "/", "dog", "cat/rex.mp4", "/other/cat/rex.mp4", "rex.avi", "mia", "deep/mia.final.avi"]),
    ],
)
def test_a_video_is_found_by_all_its_names(video_id, texts):
    assert {text: NAMES.find(text) for text in texts} == dict.fromkeys(texts, video_id)


def test_a_relative_root_is_known_by_its_absolute_path_and_its_name(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "clips")
    for folder, root in ((tmp_path, "clips"), (tmp_path / "clips", "."), (tmp_path, "link")):
        monkeypatch.chdir(folder)
        names = VideoNames(Path(root), ["dog/rex.mp4"])
        assert names.find(f"{tmp_path}/clips/dog/rex.mp4") == "dog/rex.mp4"
        assert names.find("clips/dog/rex.mp4") == "dog/rex.mp4"
    assert names.find(f"{tmp_path}/link/dog/rex.mp4") == "dog/rex.mp4"


def test_a_closer_name_wins_over_one_that_is_further_off():
    names = VideoNames(ROOT, ["dog/a.mp4", "dog/a", "dog/A", "dog/a.mp4.avi", "videos/b.mp4", "b.mp4"])
    assert names.find("dog/a") == "dog/a"
    assert names.find("dog/A") == "dog/A"
    assert names.find("dog/a.mp4") == "dog/a.mp4"
    assert names.find("videos/b.mp4") == "videos/b.mp4"
    assert names.find("videos/b") == "videos/b.mp4"
    assert names.find("b") == "b.mp4"


@pytest.mark.parametrize("text", ["rex.mp4", "rex", "REX"])
def test_a_name_of_several_videos_is_an_error_that_lists_them(text):
    names = VideoNames(ROOT, ["dog/rex.mp4", "cat/rex.mp4"])
    message = rf"^'{text}' names several videos: cat/rex\.mp4, dog/rex\.mp4; write the path below /data/videos$"
    with pytest.raises(DataError, match=message):
        names.find(text)
    assert names.find("Dog/rex") == "dog/rex.mp4"


def test_a_long_list_of_videos_is_cut():
    names = VideoNames(ROOT, [f"{number}/rex.mp4" for number in range(9)])
    with pytest.raises(DataError, match=r"3/rex\.mp4, 4/rex\.mp4 and 4 more; write"):
        names.find("rex.mp4")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_the_same_composed_and_decomposed(form):
    video_id = normalize(form, "hündin/é.mp4")
    names = VideoNames(ROOT, [video_id])
    for text in ("hündin/é.mp4", "é", "HÜNDIN/É"):
        assert {names.find(normalize(other, text)) for other in ("NFC", "NFD")} == {video_id}


PART = st.text(st.sampled_from("aAé1. "), min_size=1, max_size=3).filter(lambda part: part.strip(". "))


@given(st.sets(st.lists(PART, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6))
def test_every_video_is_found_by_its_path_in_any_spelling(video_ids):
    names = VideoNames(ROOT, sorted(video_ids))
    for video_id in video_ids:
        for text in (video_id, f"./{video_id}", f"/data/videos/{video_id}", f"videos/{video_id}"):
            assert names.find(text) == video_id
        assert names.find(video_id.replace("/", "\\")) == video_id
