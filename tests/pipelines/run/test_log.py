import json
import resource

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines.run.environment import describe_environment
from pipelines.run.folder import create_run, open_run
from pipelines.run.log import RunLog
from pipelines.run.stage import Stage, run_stage
from tcam.errors import ConfigError, DataError
from tests.helpers.tiny import files_of


def work_of(stage: Stage, **files: str):
    """Work that writes some files into the stage's folder."""

    def work() -> None:
        for name, text in files.items():
            (stage.folder / name).write_text(text)

    return work


def no_work() -> None:
    raise AssertionError("the stage was done again")


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


def test_the_environment_names_versions_and_is_json():
    environment = json.loads(json.dumps(describe_environment()))
    assert {"tcam", "torch", "timm", "av"} <= set(environment["versions"])
    assert environment["threads"] >= 1


def test_rows_are_appended_to_the_log(tmp_path):
    with RunLog(tmp_path) as log:
        log.write("classifier", 1, {"classes": 0.123456789})
    with RunLog(tmp_path) as log:
        log.write("localizer", 1, {"seeds": 2.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [
        {"stage": "classifier", "epoch": 1, "classes": 0.123457},
        {"stage": "localizer", "epoch": 1, "seeds": 2.0},
    ]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def shown_by_tensorboard(folder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(item.step, item.value) for item in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_stage_that_goes_on_forgets_rows_it_will_log_again_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with RunLog(tmp_path) as log:
        for epoch in (1, 2, 3):
            log.write("classifier", epoch, {"classes": 0.5 * epoch})
        for epoch in (1, 2):
            log.write("localizer", epoch, {"seeds": 2.0 * epoch})
    whole = path.read_text()
    with path.open("a") as stream:
        stream.write('{"stage": "localizer", "epo')  # cut off by a power failure
    with RunLog(tmp_path) as log:
        log.rewind("localizer", 1)
        assert path.read_text() == "".join(whole.splitlines(keepends=True)[:4])
        log.write("localizer", 2, {"seeds": 4.0})
    assert path.read_text() == whole
    assert shown_by_tensorboard(tmp_path) == {
        "classifier/classes": [(1, 0.5), (2, 1.0), (3, 1.5)],
        "localizer/seeds": [(1, 2.0), (2, 4.0)],
    }


def test_an_open_tensorboard_shows_each_step_once_whatever_was_logged_again(tmp_path):
    events = EventAccumulator(str(tmp_path))
    for resumed in range(4):
        with RunLog(tmp_path) as log:
            log.rewind("classifier", resumed)
            for value in (1.0, 2.0):
                log.rewind("classifier", resumed)
                log.write("classifier", resumed + 1, {"classes": value})
                log.write("classifier", resumed + 2, {"classes": 2 * value})
                shown = [(item.step, item.value) for item in events.Reload().Scalars("classifier/classes")]
                assert shown == [
                    *((step, 2.0) for step in range(1, resumed + 1)),
                    (resumed + 1, value),
                    (resumed + 2, 2 * value),
                ]
    assert shown_by_tensorboard(tmp_path) == {"classifier/classes": shown}
    assert len(list(tmp_path.glob("events.*"))) == 2


def write_many_rows(folder) -> None:
    with RunLog(folder) as log:
        for epoch in range(100):
            log.write("classifier", epoch, {f"value {i}": 1.0 for i in range(10)})


def test_a_full_disk_is_one_error_and_no_traceback_of_tensorboard(tmp_path, capfd):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*: File too large; free space"):
            write_many_rows(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr().err == ""


def test_a_line_without_its_end_takes_no_second_row(tmp_path):
    with RunLog(tmp_path) as log:
        log.write("classifier", 1, {"classes": 0.5})
        path = tmp_path / "metrics.jsonl"
        path.write_text(path.read_text().rstrip("\n"))
        log.rewind("classifier", 1)
        log.write("classifier", 2, {"classes": 0.25})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_log_without_rows_leaves_no_tensorboard_file(tmp_path):
    with RunLog(tmp_path):
        pass
    assert not list(tmp_path.glob("events.*"))


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
