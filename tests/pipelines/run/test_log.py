import json
import resource

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines.run.log import RunLog
from tcam.errors import DataError


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
