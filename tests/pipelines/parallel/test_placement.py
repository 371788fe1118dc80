"""The same bytes wherever the work is done: in this process, in child processes, on Ray; whole or in ranges."""

import shutil
from pathlib import Path

import pytest

from pipelines.data.prepare import prepare
from pipelines.inference.videos import FramePrediction, Source, VideoPart, _join
from pipelines.parallel import placement as spread_module
from pipelines.parallel.map import ItemFailure
from pipelines.parallel.placement import Placement, model_time_limit_s, split_range
from pipelines.training import cam_cache as cams_module
from pipelines.training.cam_cache import write_cams
from tcam.errors import VideoError
from tcam.types import FrameBox
from tests.helpers.encoded import encode
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import SIDE, files_of, set_walk, spoil, tiny_config, tiny_localizer

PROCESSES, ACTORS = Placement(2), Placement(2, ray=True, actors=2)
OTHERS = [
    pytest.param(PROCESSES, id="processes"),
    pytest.param(ACTORS, id="ray", marks=[pytest.mark.ray, pytest.mark.slow]),
]
FLAGS = {
    "processes": ("--workers", "2"),
    "ray": ("--ray", "--actors", "2"),
}


@pytest.fixture
def short_ranges(monkeypatch):
    """Cut videos of 8 frames into parts of 4: the parent alone cuts."""
    monkeypatch.setattr(spread_module, "RANGE_FRAMES", 4)


def test_ranges_hold_whole_batches(short_ranges):
    assert list(split_range(0, 11, batch=3)) == [range(3), range(3, 6), range(6, 9), range(9, 11)]
    assert list(split_range(5, 11, batch=2)) == [range(5, 9), range(9, 11)]
    assert list(split_range(0, 11, batch=20)) == [range(11)]
    assert list(split_range(3, 3, batch=2)) == []
    assert list(split_range(0, 11, batch=2, most=6)) == [range(6), range(6, 11)]
    assert model_time_limit_s(100) > model_time_limit_s(10) > 60


def test_processes_are_taken_where_they_pay_and_nobody_said_otherwise():
    assert Placement().settled("cpu", 10).here
    assert Placement().settled("cuda", 10**6).here
    assert not Placement().settled("cpu", 10**6).here
    assert Placement(0).settled("cpu", 10**6).here
    assert Placement(3).settled("cpu", 1) == Placement(3)


@pytest.mark.parametrize("placement", OTHERS)
def test_prepared_videos_are_the_same_bytes(placement, ray_kept, videos, tmp_path):
    spoil(videos / "fish")
    here = prepare(videos, cache_dir=tmp_path / "a", placement=Placement())
    there = prepare(videos, cache_dir=tmp_path / "b", placement=placement)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert here.failures == there.failures
    assert len(here.failures) == 4
    assert here.truth == there.truth


@pytest.mark.parametrize(
    ("placement", "refine"),
    [
        pytest.param(PROCESSES, "none", id="none-processes"),
        pytest.param(PROCESSES, "joint", id="joint-processes"),
        pytest.param(ACTORS, "joint", id="joint-ray", marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
def test_cams_are_the_same_bytes_whole_or_in_ranges(placement, refine, ray_kept, tiny_data, tmp_path, monkeypatch):
    walk = ("cam.walk.window=2", "cam.walk.stride=1")
    settings, localizer = tiny_config("cam.batch=3", f"cam.refine={refine}", *walk).cam, tiny_localizer()
    write_cams(tiny_data.index, localizer, tmp_path / "a", settings=settings, size=(SIDE, SIDE), placement=Placement())
    monkeypatch.setattr(cams_module, "_most_frames", lambda settings: 3)
    write_cams(tiny_data.index, localizer, tmp_path / "b", settings=settings, size=(SIDE, SIDE), placement=placement)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "refine"),
    [("processes", "none"), ("processes", "joint"), pytest.param("ray", "joint", marks=pytest.mark.ray)],
)
def test_predictions_are_the_same_bytes_whole_or_in_ranges(
    name, refine, ray_kept, tcam, tiny_run, tmp_path, monkeypatch
):
    run = shutil.copytree(tiny_run.folder, tmp_path / "copy-001")
    set_walk(run, window=2, stride=2)
    sources = tmp_path / "sources"
    shutil.copytree(tiny_run.videos / "fish", sources)
    spoil(sources)
    long = encode(sources / "long.mp4", frames=37, size=(64, 96), options={"g": "8", "bf": "2"})
    damaged = bytearray(long.read_bytes())
    # Where the decoder notices: a damaged frame that it conceals differs with the frame that decoding starts at.
    start = len(damaged) * (10 if refine == "none" else 11) // 20
    damaged[start : start + 300] = bytes(300)
    (sources / "damaged.mp4").write_bytes(damaged)
    calls = ["predict", run, "--source", sources, "--device", "cpu", "--batch", "4", "--refine", refine, "-o"]
    assert tcam(*calls, tmp_path / "a" / "boxes.csv", "--workers", "0").code == 4
    monkeypatch.setattr(spread_module, "RANGE_FRAMES", 8)
    found = tcam(*calls, tmp_path / "b" / "boxes.csv", *FLAGS[name])
    assert found.code == 4, found.err
    here, there = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert here["boxes.csv"].count(b"\n") > 1 + 4 * TINY_FRAMES + 37
    assert here == there
    if refine == "joint":  # an overlay is drawn of a video read in order
        assert tcam(*calls, tmp_path / "c" / "boxes.csv", "--save-video", tmp_path / "videos").code == 4
        assert (tmp_path / "c" / "boxes.csv").read_bytes() == here["boxes.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["processes", pytest.param("ray", marks=pytest.mark.ray)])
def test_evaluations_are_the_same_bytes(name, ray_kept, tcam, tiny_run, tmp_path, monkeypatch):
    calls = ["evaluate", tiny_run.folder, "--videos", tiny_run.videos, "--split", "all", "--device", "cpu", "-o"]
    here = tcam(*calls, tmp_path / "a", "--workers", "0", "--json")
    monkeypatch.setattr(spread_module, "RANGE_FRAMES", 4)
    there = tcam(*calls, tmp_path / "b", *FLAGS[name], "--json")
    assert (here.code, there.code) == (0, 0), there.err
    assert here.out == there.out
    for file in ("results.json", "per_frame.parquet", "index.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_rest_of_a_damaged_video_is_asked_of_a_worker_that_may_fail():
    source, asked = Source("a.mp4", Path("a.mp4")), []
    parts = [VideoPart(source, range(4), 12), VideoPart(source, range(4, 8), 12), VideoPart(source, range(8, 12), 12)]
    first = [FramePrediction(FrameBox("a.mp4", index, 0.0, 0, 1.0, 0.0, None), (8, 8)) for index in range(4)]

    def read_on(rest):
        asked.append(rest)
        return ItemFailure(0, "it took longer than its time limit and was stopped")

    rows = _join(iter(zip(parts, [first, None, None], strict=True)), read_on)
    assert [next(rows) for _ in range(4)] == first
    with pytest.raises(VideoError, match="longer than its time limit"):
        next(rows)
    assert asked == [VideoPart(source, None, 12, first=4)]
