import pytest

from pipelines.run.folder import create_run, open_run
from tcam.errors import ConfigError, DataError


def test_runs_are_numbered_and_never_reused(tmp_path):
    root = tmp_path / "runs"
    assert create_run(root, "pets").name == "pets-001"
    assert create_run(root, "pets").name == "pets-002"
    (root / "pets-041").mkdir()
    assert create_run(root, "pets").name == "pets-042"
    assert create_run(root, "pet").name == "pet-001"
    assert create_run(root, "pets-042").name == "pets-042-001"


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "-x", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="--name wants letters, digits"):
        create_run(tmp_path, name)
    assert not any(tmp_path.iterdir())


def test_a_place_for_runs_that_is_a_file_is_said_plainly(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(DataError, match=r"cannot make a run folder in .*runs: "):
        create_run(tmp_path / "runs", "pets")


def test_opening_what_is_no_run_lists_the_runs_there(tmp_path):
    with pytest.raises(
        DataError, match=r"expected a run folder at .*x, found no such folder; make one with 'tcam train'"
    ):
        open_run(tmp_path / "x")
    run = create_run(tmp_path, "pets")
    with pytest.raises(DataError, match=r"found a folder without config\.yaml"):
        open_run(run)
    (run / "config.yaml").touch()
    assert open_run(run) == run
    with pytest.raises(DataError, match="found no such folder; runs there: pets-001"):
        open_run(tmp_path / "pets-002")
