"""Small and odd data from the command line, with the settings of the small recipe (the table of docs/own-videos.md)."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from pipelines.config.shipped import configs_folder
from tcam.video.writer import VideoWriter
from tests.helpers.tiny import SETTINGS, set_flags, write_imagenet_weights

pytestmark = [pytest.mark.slow, pytest.mark.together]

BATCHES = ("localizer.batch=32", "classifier.batch=32")
SMALL = configs_folder() / "real" / "tcam-small.yaml"
NETWORK = ("input.resize=64", "model.levels_used=null", "localizer.rounds=2", *BATCHES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_imagenet_weights(tmp_path_factory.mktemp("weights") / "resnet.safetensors")


@pytest.fixture
def train(tcam, weights, tmp_path):
    """Return a function that trains on videos with the small recipe and returns the run folder and its messages."""

    def run(videos):
        settings = [text for text in SETTINGS if not text.startswith(("model.decoder", "model.weights"))]
        flags = set_flags((*settings, f"model.weights={weights}", *NETWORK))
        found = tcam("train", "--videos", videos, "--config", SMALL, "--runs", tmp_path / "runs", "--name", "x", *flags)
        assert found.code == 0, found.err
        return tmp_path / "runs" / "x-001", found.err

    return run


def write_square(path, seed, *, frames=4):
    """Write a video of a square on a coarse texture; give back the box of the square."""
    background = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    background[8:48, 8:48] = (40 * seed % 255, 200, 30)
    write(path, background, frames)
    return 8, 8, 48, 48


def write(path, picture, frames=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, size=picture.shape[:2], fps=24) as writer:
        for _ in range(frames):
            writer.write(picture.transpose(2, 0, 1))


def assert_numbers(*texts):
    for text in texts:
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_one_picture_per_class_trains_predicts_and_is_not_evaluated(tcam, train, tmp_path):
    """Two dozen classes of one frame each: no validation, no test, shots of one frame."""
    videos, generator = tmp_path / "videos", np.random.default_rng(0)
    for number in range(24):
        folder = videos / f"c{number:02d}" / "one"
        folder.mkdir(parents=True)
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "frame1.png")
    write_square(videos / "square" / "longer.mp4", 1)
    run, said = train(videos)
    assert "25 videos: 25 train, 0 val, 0 test videos" in said
    assert "no boxes of test videos: nothing to evaluate" in said
    stored = json.loads((run / "evaluation" / "thresholds.json").read_text())
    assert (stored["chosen_on"], stored["presence"]) == ("tags", {"prior": None, "tcam": None})
    for refine in ("none", "joint"):
        table = tmp_path / f"{refine}.csv"
        found = tcam("predict", run, "--source", videos / "c07" / "one", "--refine", refine, "-o", table)
        assert found.code == 0, found.err
        assert len(table.read_text().splitlines()) == 2
        assert_numbers(table.read_text())
    assert_numbers(said, (run / "report" / "report.html").read_text())
    found = tcam("evaluate", run)
    assert found.error == "the test split has no videos: choose another with --split, or other videos with --videos"
    assert "expected boxes to compare with" in tcam("evaluate", run, "--split", "all").error
    found = tcam("predict", run, "--source", videos, "--class", "cow", "-o", tmp_path / "x.csv")
    assert found.error.endswith("c18, c19 and 5 more")


def test_validation_without_a_class_a_class_of_blank_frames_and_videos_without_boxes(tcam, train, tmp_path):
    """No figure counts the training video without boxes, as those of webclips with gt_type none."""
    videos, clips, boxes = tmp_path / "videos", [], []
    places = ("a train", "a val", "a test", "b train", "b test", "b none", "blank train", "blank test")
    for seed, (tag, split) in enumerate(place.split() for place in places):
        name = f"{tag}/{tag}-{split}.mp4"
        box = write_square(videos / name, seed)
        if tag == "blank":
            write(videos / name, np.full((64, 64, 3), 100 + seed, np.uint8))
        clips.append((name, tag, "train" if split == "none" else split))
        boxes += [(name, frame, *box) for frame in (0, 2)] if split != "none" else []
    for table, rows in (("clips.csv", [("video", "class", "split"), *clips]), ("boxes.csv", boxes)):
        head = [("video", "frame", "x0", "y0", "x1", "y1")] if rows is boxes else []
        with (videos / table).open("w", newline="") as stream:
            csv.writer(stream).writerows([*head, *rows])
    run, said = train(videos)
    assert json.loads((run / "evaluation" / "thresholds.json").read_text())["chosen_on"] == "validation"
    evaluated = tmp_path / "all"
    found = tcam("evaluate", run, "--split", "all", "-o", evaluated, "--refine", "joint", "--baseline", "ddt")
    assert found.code == 0, found.err
    assert_numbers(said, found.err, (run / "report" / "report.html").read_text())
    results = json.loads((run / "evaluation" / "results.json").read_text())
    assert results["frames_per_class"] == {"a": 2, "b": 2, "blank": 2}
    whole = json.loads((evaluated / "results.json").read_text())
    assert (whole["num_frames"], whole["num_videos"]) == (len(boxes), 7)
    assert "b/b-none.mp4" not in whole["rows"][-1]["per_video"]
    metrics = {metric["name"]: metric["value"] for metric in whole["metrics"]}
    assert metrics["Presence: false alarms"] is None  # no frame is known to be empty
