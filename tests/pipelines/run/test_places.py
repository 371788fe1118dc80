from pathlib import Path

import platformdirs

from pipelines.run.places import cache_folder, data_folder


def test_variables_name_the_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("TCAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TCAM_DATA", str(tmp_path / "data"))
    assert (cache_folder(), data_folder()) == (tmp_path / "home" / "cache", tmp_path / "data")


def test_without_them_they_are_those_of_the_system(monkeypatch):
    for name in ("TCAM_HOME", "TCAM_DATA"):
        monkeypatch.setenv(name, "")
    assert cache_folder() == Path(platformdirs.user_cache_dir("tcam"))
    assert data_folder() == Path(platformdirs.user_data_dir("tcam"))
