import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
import yaml

import tcam
from pipelines.config.schema import load_config
from pipelines.models.open import open_model
from pipelines.run.console import console
from pipelines.streaming.localizer import StreamLocalizer
from tcam.errors import ConfigError, DataError
from tcam.video.pixels import FrameScaler
from tests.helpers.python_processes import python_process
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import SETTINGS

SIZE = 48, 90
NUM_FRAMES = 11  # more than a batch of 8


@pytest.fixture(scope="module")
def frames():
    """Smooth random frames, ``[11, 48, 90, 3]``: their maps are of many levels."""
    coarse = torch.rand(NUM_FRAMES, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
    return smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture(scope="module")
def threshold(tiny_run, frames):
    """A threshold at which maps of the tiny run give boxes that are not the whole frame."""
    maps = np.stack([found.map for found in tcam.Localizer(tiny_run.folder)(frames)])
    return float(np.median(maps / maps.max((1, 2), keepdims=True)))


@pytest.fixture
def call_tcam(request):
    """The fixture ``tcam``, the command line, by a name that is not the package's."""
    return request.getfixturevalue("tcam")


def test_one_import_gives_the_boxes_of_a_file(tiny_run):
    source = tiny_run.videos / "fish" / "fish-03.mp4"
    found = tcam.predict(source, run=tiny_run.folder)
    assert [box.frame_index for box in found] == list(range(TINY_FRAMES))
    streamed = tcam.predict(source, run=StreamLocalizer.of_run(tiny_run.folder, video_id="stream"), stream=True)
    assert next(streamed) == found[0]
    assert list(streamed) == found[1:]


def test_a_localizer_predicts_videos_one_after_the_other(tiny_run):
    localizer = tcam.Localizer(tiny_run.folder, threshold=0.5)
    for name in ("fish/fish-03.mp4", "beetle/beetle-03.mp4"):
        wanted = tcam.predict(tiny_run.videos / name, run=tcam.StreamLocalizer.of_run(tiny_run.folder, threshold=0.5))
        assert tcam.predict(tiny_run.videos / name, run=localizer) == wanted


def test_the_threads_of_the_caller_are_left_alone(tiny_run):
    before = torch.get_num_threads()
    streamed = tcam.predict(tiny_run.videos / "fish" / "fish-03.mp4", run=tiny_run.folder, stream=True)
    torch.set_num_threads(2)
    try:
        next(streamed)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        streamed.close()


def test_a_run_steps_through_frames_of_any_size(tiny_run):
    localizer = tcam.StreamLocalizer.of_run(tiny_run.folder, class_name="fish", threshold=0.5)
    for height, width in ((64, 96), (480, 640)):
        found = localizer.step(torch.randint(0, 255, (height, width, 3), dtype=torch.uint8))
        assert localizer.class_names[found.label] == "fish"
        assert found.box is None or (found.box.x1 <= width and found.box.y1 <= height)


def assert_alike(found, wanted):
    """Boxes are equal, and scores but for rounding: one frame at a time has other last bits than eight."""
    scores = {"class_score": wanted.class_score, "score": wanted.score, "map_peak": wanted.map_peak}
    assert replace(found, **scores) == wanted
    for name, score in scores.items():
        assert getattr(found, name) == pytest.approx(score, abs=1e-6)


def write_lossless(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_arrays_give_the_boxes_of_tcam_predict(call_tcam, tiny_run, frames, threshold, tmp_path):
    """The same pixels as a lossless video, through the command line."""
    output = tmp_path / "boxes.csv"
    video = write_lossless(tmp_path / "lossless.mkv", frames)
    outcome = call_tcam("predict", tiny_run.folder, "--source", video, "-o", output, "--threshold", threshold)
    assert outcome.code == 0, outcome.err
    with output.open() as stream:
        rows = list(csv.DictReader(stream))
    found = tcam.Localizer(tiny_run.folder, threshold=threshold)(frames)
    assert len(found) == len(rows) == NUM_FRAMES
    boxes = {tuple(item.box) for item in found if item.box is not None}
    assert len(boxes) > 1, "all frames gave the same box: the test sees nothing"
    for row, item in zip(rows, found, strict=True):
        assert item.box is not None
        assert [float(row[side]) for side in ("x0", "y0", "x1", "y1")] == pytest.approx(list(item.box), abs=0.0051)
        assert (row["class"], int(row["frame"])) == (item.class_name, item.frame_index)
        assert float(row["class_score"]) == pytest.approx(item.class_score, abs=1e-6)
        assert float(row["score"]) == pytest.approx(item.score, abs=1e-6)
    assert tcam.predict(video, run=tcam.Localizer(tiny_run.folder, threshold=threshold)) == found


def test_arrays_give_the_boxes_of_the_steps_of_a_stream(tiny_run, frames, threshold):
    stream = tcam.StreamLocalizer.of_run(tiny_run.folder, threshold=threshold)
    found = tcam.Localizer(tiny_run.folder, threshold=threshold)(frames)
    for frame, item in zip(frames, found, strict=True):
        assert_alike(stream.step(frame), item)


def test_maps_are_those_of_the_network_at_its_own_size(tiny_run, frames):
    localizer = tcam.Localizer(tiny_run.folder)
    found = localizer(frames)
    scale = FrameScaler()
    pixels = np.stack([scale.resize(frame, localizer.size) for frame in frames[:8]])
    wanted = open_model(tiny_run.folder).packed.unpack().find(pixels, None)
    np.testing.assert_allclose(np.stack([item.map for item in found[:8]]), wanted.maps, atol=1e-6)
    assert all(item.map.dtype == np.float32 and item.map.shape == localizer.size for item in found)
    assert [item.map_peak for item in found] == [pytest.approx(float(item.map.max())) for item in found]


def test_tensors_and_arrays_give_the_same(tiny_run, frames):
    localizer = tcam.Localizer(tiny_run.folder)
    assert localizer(torch.from_numpy(frames)) == localizer(frames)
    assert_alike(localizer(frames[2:3])[0], replace(localizer(frames)[2], frame_index=0, time_s=0.0))


def test_a_localizer_looks_for_the_class_it_is_told(tiny_run, frames):
    for name in ("fish", "beetle"):
        found = tcam.Localizer(tiny_run.folder, class_name=name)(frames)
        assert {item.class_name for item in found} == {name}
    with pytest.raises(ConfigError, match="the run knows beetle, fish"):
        tcam.Localizer(tiny_run.folder, class_name="bird")


def test_a_localizer_says_what_it_is(tiny_run):
    stored = json.loads((tiny_run.folder / "evaluation" / "thresholds.json").read_text())["thresholds"]["tcam"]
    localizer = tcam.Localizer(tiny_run.folder)
    assert (localizer.class_names, localizer.size, localizer.threshold) == (("beetle", "fish"), (64, 64), stored)
    assert tcam.Localizer(tiny_run.folder, threshold=0.25).threshold == 0.25


def test_a_localizer_can_be_pickled(tiny_run, frames):
    localizer = tcam.Localizer(tiny_run.folder)
    assert pickle.loads(pickle.dumps(localizer))(frames) == localizer(frames)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((48, 90, 3), np.uint8),
        np.zeros((2, 3, 48, 90), np.uint8),
        np.zeros((2, 48, 90, 3), np.float32),
        np.zeros((2, 0, 90, 3), np.uint8),
    ],
    ids=["one frame", "channels first", "float", "no pixels"],
)
def test_frames_of_another_form_are_refused(tiny_run, wrong):
    localizer = tcam.Localizer(tiny_run.folder)
    with pytest.raises(ValueError, match=r"frames must be uint8 \[B, H, W, 3\], got .*; for one frame, pass frame\[N"):
        localizer(wrong)


def test_no_frames_give_no_boxes(tiny_run):
    assert tcam.Localizer(tiny_run.folder)(np.zeros((0, 48, 90, 3), np.uint8)) == []


def test_a_threshold_outside_its_range_is_refused(tiny_run):
    with pytest.raises(ValueError, match=r"threshold must be in 0\.\.1, got 1\.5"):
        tcam.Localizer(tiny_run.folder, threshold=1.5)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected a run folder at"):
        tcam.Localizer(tmp_path / "absent")


@pytest.fixture
def small_settings():
    """The settings of the tiny run as a mapping, some nested and some dotted."""
    settings = {key: yaml.safe_load(value) for key, value in (setting.split("=", 1) for setting in SETTINGS)}
    nested = {"backbone": settings.pop("model.backbone"), "weights": settings.pop("model.weights")}
    return {**settings, "model": nested, "method": "cam", "classifier": {"lr": 1e-05, "weight_decay": 0}}


@pytest.fixture
def home(tiny_run, monkeypatch):
    """The cache of the tiny run, with its clean copies."""
    monkeypatch.setenv("TCAM_HOME", str(tiny_run.home))
    return tiny_run.home


@pytest.mark.slow
def test_training_returns_a_run_with_these_settings(tiny_run, home, small_settings, tmp_path, capsys):
    run = tcam.train(tiny_run.videos, settings=small_settings, runs=tmp_path / "runs", quiet=True)
    assert run == tmp_path / "runs" / "videos-cam-001"
    assert capsys.readouterr() == ("", "")
    config = load_config(run / "config.yaml")
    assert (config.method, config.classifier.lr, config.classifier.weight_decay) == ("cam", 1e-05, 0.0)
    assert (config.model.backbone, config.model.decoder_channels) == ("test_resnet", (8,) * 3)
    assert tcam.Localizer(run).class_names == ("beetle", "fish")
    assert not console.quiet


@pytest.mark.slow
def test_training_goes_on_with_a_run(tiny_run, home):
    assert tcam.train(resume=str(tiny_run.folder), quiet=True) == tiny_run.folder
    with pytest.raises(ConfigError, match="goes on with the run's own settings"):
        tcam.train(resume=tiny_run.folder, settings={"seed": 1}, quiet=True)
    assert not console.quiet, "an error left the console quiet"


def test_a_broken_video_is_listed_in_the_run(videos, home, small_settings, tmp_path):
    (videos / "fish" / "broken.mp4").write_bytes(bytes(range(256)) * 40)
    run = tcam.train(videos, settings=small_settings, runs=tmp_path / "runs", quiet=True)
    with (run / "index" / "errors.csv").open() as stream:
        assert [row["video"] for row in csv.DictReader(stream)] == ["fish/broken.mp4"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classifier": {"epoch": 2}}, "unknown setting 'classifier.epoch': did you mean 'epochs'"),
        ({"classifier.epochs": "two"}, "setting 'classifier.epochs'"),
        ({"method": object()}, "setting 'method': expected a number, text, list or mapping, found a object"),
        ({"seed": 1, "seed.x": 2}, "'seed' is one value, not a group of settings"),
    ],
)
def test_settings_that_are_wrong_are_named(tiny_run, home, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        tcam.train(tiny_run.videos, settings=settings, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_training_needs_videos(tmp_path):
    with pytest.raises(ConfigError, match="expected --videos FOLDER"):
        tcam.train(runs=tmp_path)


def run_python(*arguments, cwd):
    """Run Python as a user does, with no test above it; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TCAM_HOME": str(cwd / "home")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_script_with_a_guard_trains_with_child_processes(tiny_run, small_settings, tmp_path):
    settings = {**small_settings, "data.workers": 2}
    script = f"""
        import tcam
        if __name__ == "__main__":
            print(tcam.train({str(tiny_run.videos)!r}, settings={settings!r}, runs="runs", quiet=True))
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    assert run_python("script.py", cwd=tmp_path) == "runs/videos-cam-001\n"


@pytest.mark.slow
def test_a_session_without_a_script_evaluates_with_child_processes(tiny_run, tmp_path):
    """As in a notebook, ``__main__`` has no file and nothing is guarded."""
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    code = "import tcam; print(len(tcam.evaluate('run', workers=2, quiet=True)))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "TCAM_HOME": str(tmp_path / "home")}
    with python_process(code, cwd=tmp_path, env=environment, **pipes) as process:
        assert process.communicate(timeout=300) == ("10\n", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_the_table_of_an_evaluation_is_that_of_the_command_line(call_tcam, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "tiny-001")
    table = tcam.evaluate(run, split="val", workers=0, quiet=True)
    outcome = call_tcam("evaluate", run, "--split", "val", "--workers", "0", "--json")
    rows = json.loads(outcome.out)
    assert len(table) == len(rows) == 10
    for (_, found), row in zip(table.iterrows(), rows, strict=True):
        for key in ("method", "threshold_choice", "macro", "micro", "num_frames", "protocol"):
            assert found[key] == row[key]
        assert found["per_class.fish"] == row["per_class"]["fish"]
        assert [found["interval.low"], found["interval.high"]] == row["interval"]
        assert np.isnan(found["threshold"]) if row["threshold"] is None else found["threshold"] == row["threshold"]
    assert list(table.columns[:5]) == ["method", "threshold_choice", "threshold", "macro", "micro"]
    assert table["per_class.fish"].dtype == table["thresholds_per_class.fish"].dtype == np.float64
    assert table.attrs["failures"] == {}
    assert (run / "evaluation-val" / "results.json").is_file()


@pytest.mark.slow
def test_an_evaluation_names_the_videos_it_could_not_read(videos, tiny_run, tmp_path):
    (videos / "fish" / "broken.mp4").write_bytes(bytes(range(256)) * 40)
    table = tcam.evaluate(
        tiny_run.folder, videos=videos, split="all", output=tmp_path / "out", protocol="benchmark", quiet=True
    )
    assert list(table.attrs["failures"]) == ["fish/broken.mp4"]
    assert set(table["components"]) == {"largest contour"}
    assert (tmp_path / "out" / "report" / "report.html").is_file()


def test_an_evaluation_of_other_classes_is_refused(tiny_run, videos, tmp_path):
    for table in videos.glob("*.csv"):
        table.unlink()
    (videos / "fish").rename(videos / "bird")
    with pytest.raises(DataError, match="the videos hold class 'bird'; the run knows beetle, fish"):
        tcam.evaluate(tiny_run.folder, videos=videos, output=tmp_path / "out", quiet=True)


def test_names_for_users_are_listed_and_no_others_exist():
    assert {"Localizer", "StreamLocalizer", "evaluate", "predict", "train", "__version__"} <= set(dir(tcam))
    with pytest.raises(AttributeError, match="module 'tcam' has no attribute 'predcit'"):
        tcam.predcit  # noqa: B018
