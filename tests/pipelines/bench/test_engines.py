import re

import pytest

from pipelines.models.export import write_export
from tests.helpers.encoded import encode
from tests.helpers.exports import some_facts, traced_once
from tests.helpers.tiny import tiny_localizer

COLUMNS = ["engine", "decode", "prepare", "network", "box", "sink", "all", "frames/s", "started in s", "added MB"]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("bench") / "a.mp4", frames=20)


def rows_of(table: str) -> dict[str, list[str]]:
    """Give the cells of the table by engine, its header checked."""
    title, empty, header, _, *lines = table.splitlines()
    assert re.match(r"a.mp4: \d+ frames in batches of \d+, \d+ threads", title), title
    assert empty == ""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines)]
    assert cells[0] == COLUMNS
    return {row[0]: row[1:] for row in cells[1:]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No complete tensor found in the group:UserWarning")  # of torch.export.save
def test_an_exported_file_is_measured_stage_by_stage(tcam, video, tmp_path):
    write_export(tiny_localizer(), some_facts(), tmp_path / "cam.pt2")  # the format that is written soonest
    done = tcam("bench", tmp_path / "cam.pt2", "--source", video, "--batch", "4", "--frames", "16")
    assert done.code == 0, done.err
    ((name, cells),) = rows_of(done.out).items()
    assert name == "cam.pt2"
    medians, tails = zip(*(map(float, re.findall(r"[\d.]+", cell)) for cell in cells[:6]), strict=True)
    assert all(0 <= middle <= tail for middle, tail in zip(medians, tails, strict=True))
    assert max(medians) == medians[5] > 0
    assert float(cells[6]) == pytest.approx(1000 / medians[5], rel=0.1)
    assert "12 frames in batches of 4" in done.out  # the first batch warms up


@pytest.mark.slow
def test_a_run_is_measured_in_pytorch_and_in_every_exported_format(tcam, tiny_run, video):
    with traced_once():
        done = tcam("bench", tiny_run.folder, "--source", video, "--batch", "4")
    assert done.code == 0, done.err
    found = rows_of(done.out)
    assert "pytorch fp32" in found
    for package, name in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        assert name in found or f"left out {name}: --format" in done.err, (package, done.err)
    assert "pytorch fp32 compiled" in found or "torch.compile does not work here" in done.err


def test_a_source_that_is_too_short_or_many_is_one_line(tcam, tiny_run, video):
    done = tcam("bench", tiny_run.folder, "--source", video, "--batch", "8")
    assert (done.code, "expected 3 batches of 8 frames, found 2" in done.error) == (3, True)
    done = tcam("bench", tiny_run.folder, "--source", tiny_run.videos)
    assert (done.code, "expected one video, found 8" in done.error) == (2, True)
