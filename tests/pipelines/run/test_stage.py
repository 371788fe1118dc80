import pytest

from pipelines.run.stage import Stage, run_stage
from tests.helpers.tiny import files_of


def work_of(stage: Stage, **files: str):
    """Work that writes some files into the stage's folder."""

    def work() -> None:
        for name, text in files.items():
            (stage.folder / name).write_text(text)

    return work


def no_work() -> None:
    raise AssertionError("the stage was done again")


def test_a_stage_is_done_once_for_the_same_inputs(tmp_path):
    stage = Stage(tmp_path / "run-001" / "cams", "f1")
    assert not stage.done
    run_stage(stage, work_of(stage, x="1"))
    assert stage.done
    run_stage(stage, no_work)
    assert not Stage(stage.folder, "f2").done


def test_a_damaged_mark_means_not_done(tmp_path):
    stage = Stage(tmp_path / "cams", "f1")
    stage.finish()
    for text in ("", "{", "[]", '{"fingerprint": "f2"}'):
        (stage.folder / "stage.json").write_text(text)
        assert not stage.done


def test_other_inputs_clear_what_a_stage_left(tmp_path):
    folder = tmp_path / "run-001" / "cams"
    run_stage(Stage(folder, "f1"), work_of(Stage(folder, "f1"), old="1", both="1"))
    run_stage(Stage(folder, "f2"), work_of(Stage(folder, "f2"), both="2"))
    assert not (folder / "old").exists()
    assert (folder / "both").read_text() == "2"


def test_a_stage_that_stopped_midway_finds_its_files_again(tmp_path):
    stage = Stage(tmp_path / "run-001" / "cams", "f1")

    def half() -> None:
        (stage.folder / "first").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, half)
    assert not stage.done
    run_stage(stage, work_of(stage, second="2"))
    assert {"first", "second"} <= set(files_of(stage.folder))


def test_the_same_stage_of_a_neighbour_run_is_taken(tmp_path):
    first, second = (Stage(tmp_path / run / "cams", "f1") for run in ("a-001", "b-001"))
    run_stage(first, work_of(first, x="1"))
    run_stage(second, no_work)
    assert second.done
    assert files_of(second.folder) == files_of(first.folder)


def test_a_stage_taken_over_mixes_with_nothing_and_leaves_other_runs_alone(tmp_path):
    one, two = Stage(tmp_path / "a-001" / "cams", "f1"), Stage(tmp_path / "b-001" / "cams", "f2")
    run_stage(one, work_of(one, x="one", y="one"))
    run_stage(two, work_of(two, x="two"))
    shared = tmp_path / "c-001" / "cams"
    run_stage(Stage(shared, "f1"), no_work)  # linked to run a
    run_stage(Stage(shared, "f2"), no_work)  # replaced by run b's
    assert files_of(shared) == files_of(two.folder)
    assert (one.folder / "x").read_text() == "one"
    assert one.done
    assert [path.name for path in shared.parent.iterdir()] == ["cams"]
