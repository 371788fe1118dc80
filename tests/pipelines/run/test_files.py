import pytest

from pipelines.run.files import copy_folder, hash_file, hash_json, write_json, write_text
from tcam.errors import DataError


def test_a_file_appears_whole_in_folders_made_for_it(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"b": 1, "a": [1.5, None]})
    assert (tmp_path / "a" / "b.json").read_text() == '{\n  "a": [\n    1.5,\n    null\n  ],\n  "b": 1\n}\n'
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_file_is_replaced_not_edited(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with path.open() as before:
        write_text(path, "new")
        assert before.read() == "old"
    assert path.read_text() == "new"


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*x\.txt: .*; free space or choose another folder"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_a_folder_in_the_way_is_said_plainly(tmp_path):
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*x\.txt"):
        write_text(tmp_path / "x.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_hashes_depend_on_content_only(tmp_path):
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})
    assert hash_json([1, 2]) != hash_json([2, 1])
    for name, text in (("x", "same"), ("y", "same"), ("z", "other")):
        (tmp_path / name).write_text(text)
    assert hash_file(tmp_path / "x") == hash_file(tmp_path / "y") != hash_file(tmp_path / "z")
    assert len(hash_file(tmp_path / "x")) == len(hash_json(0)) == 20


def test_what_replaces_a_copied_file_leaves_the_source_alone(tmp_path):
    write_text(tmp_path / "source" / "deep" / "x.txt", "old")
    copy_folder(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy" / "deep" / "x.txt").read_text() == "old"
    write_text(tmp_path / "copy" / "deep" / "x.txt", "new")
    assert (tmp_path / "source" / "deep" / "x.txt").read_text() == "old"
