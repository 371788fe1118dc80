import json
import shutil

import pytest

from pipelines.commands.train import start_or_resume
from tests.helpers.tiny import files_of, read_errors, spoil


def test_prepare_leaves_what_train_finds_ready(tcam, videos, tmp_path):
    spoilt = set(spoil(videos / "fish").values())
    settings = ("--set", "data.cache_short_side=64", "--workers", "0")
    found = tcam("prepare", videos, "-o", tmp_path / "out", *settings)
    assert found.code == 4
    lines = [line.split() for line in found.err.splitlines()]
    assert ["class", "train", "val", "test"] in lines
    assert ["fish", "2", "1", "1"] in lines
    assert set(read_errors(tmp_path / "out" / "errors.csv")) == spoilt
    assert len(json.loads((tmp_path / "out" / "index.json").read_text())["records"]) == 8
    cache = tmp_path / "home" / "cache"
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(before) == 2 * 8
    assert tcam("prepare", videos, "-o", tmp_path / "again", *settings, "-q").code == 4
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    assert files_of(tmp_path / "again") == files_of(tmp_path / "out")


@pytest.mark.slow
def test_cams_makes_what_resuming_finds_ready(tcam, tiny_run, tmp_path, monkeypatch):
    run = shutil.copytree(tiny_run.folder, tmp_path / "runs" / "tiny-001")
    whole = files_of(run / "cams")
    shutil.rmtree(run / "cams")
    found = tcam("cams", run, "--device", "cpu", "--workers", "0")
    assert found.code == 0, found.err
    assert files_of(run / "cams") == whole
    before = (run / "cams" / "header.json").stat().st_mtime_ns
    monkeypatch.setenv("TCAM_HOME", str(tiny_run.home))
    assert start_or_resume(tiny_run.videos, resume=run, quiet=True).failures == 0
    assert (run / "cams" / "header.json").stat().st_mtime_ns == before


def test_cams_needs_a_classifier(tcam, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "runs" / "tiny-001")
    shutil.rmtree(run / "classifier")
    found = tcam("cams", run, "--device", "cpu")
    assert found.code == 5
    assert found.error == f"{run} has no trained classifier: finish it with 'tcam train --resume {run}'"
