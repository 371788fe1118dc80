import errno
import os
import subprocess
import sys

import pytest

from tcam.errors import DataError, VideoError
from tcam.files import cannot_write, replacing, sweep_leftovers, temporary_name


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["x.txt"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text({"half": "half"}["half"] + {}["other half"])
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.txt", "old")]


def test_a_name_that_is_too_long_is_the_fault_of_its_video(tmp_path):
    long = tmp_path / ("x" * 300)
    told = r"the name of its output is too long .*: rename the video"
    with pytest.raises(VideoError, match=told), replacing(long) as temporary:
        temporary.write_text("text")
    full = cannot_write(tmp_path / "x", OSError(errno.ENOSPC, "No space left on device"))
    assert type(full) is DataError
    assert str(full) == f"cannot write {tmp_path / 'x'}: No space left on device; free space or choose another folder"


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    deep = tmp_path / "classifier"
    deep.mkdir()
    kept = [
        f".x.csv.{os.getppid()}.tmp",  # of a living process
        f"classifier/.x.csv.{os.getppid()}.part",
        ".hidden.tmp",
        "notes.tmp",
        "x.csv",
    ]
    swept = [f".x.csv.{ended.pid}.tmp", f".x.csv.{ended.pid}.part", f"classifier/.x.pt.{ended.pid}.tmp"]
    swept.append(temporary_name(deep / "y.csv").relative_to(tmp_path).as_posix())  # an earlier process had our number
    for name in (*kept, *swept):
        (tmp_path / name).touch()
    (tmp_path / f".cams.{ended.pid}.tmp" / "deep").mkdir(parents=True)
    sweep_leftovers(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {*kept, "classifier"}


def test_only_what_was_to_become_one_file_is_swept_where_it_is_named(tmp_path):
    ours = [temporary_name(tmp_path / name).name for name in ("boxes.csv", "other.csv")]
    for name in ours:
        (tmp_path / name).touch()
    sweep_leftovers(tmp_path, name="boxes.csv")
    assert [file.name for file in tmp_path.iterdir()] == [ours[1]]
