"""Every localizer method through the same commands: train, resume, predict, evaluate."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.schema import load_config
from pipelines.data.negatives import find_negatives
from pipelines.models.run import Run, load_localizers, load_run, main_localizer
from pipelines.run.log import RunLog
from pipelines.training.run_stage import train_here
from pipelines.training.stages import negative_slots
from pipelines.training.validation import Validator
from tcam.errors import DataError
from tcam.types import NO_CLASS, FrameTruth, Shot, VideoIndex
from tests.helpers.encoded import encode
from tests.helpers.tiny import CPU, WHOLE, files_of, record, set_flags, tiny_config

METHODS = ("fcam", "pixelcam", "negev", "maxmin")
SOFT = ("cam.refine=joint", "localizer.optimizer=adamw", "localizer.seeds.weight=0", "localizer.soft.weight=1")
OWN_TERMS = {"pixelcam": "classes", "negev": "negatives", "maxmin": "background"}


@pytest.fixture(scope="module")
def background(tmp_path_factory) -> Path:
    """Two videos without any object, and one that is broken."""
    folder = tmp_path_factory.mktemp("background")
    (folder / "more").mkdir()
    encode(folder / "street.mp4", frames=6)
    encode(folder / "more" / "street.mp4", frames=5)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def train(train_beside, background):
    """Return a function that trains a method beside the tiny run, with the same classifier and CAMs."""

    def run(method: str, name: str, *overrides: str) -> Path:
        if method == "negev":
            overrides = (f"data.background={background}", *overrides)
        return train_beside(name, f"method={method}", *overrides, failures=int(method == "negev"), quiet=True)

    return run


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train_the_localizer(folder: Path) -> None:
    """Train or go on with the last stage of a run as its command does, without the evaluation that follows."""
    run = load_run(folder, device="cpu")
    validator = Validator(run.index, run.truth, settings=run.config.evaluation, size=run.input_size)
    with RunLog(folder) as log:
        train_here(run, "localizer", validator, log)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_found_by_the_other_commands(method, train, tcam, tiny_run, tmp_path):
    folder = train(method, method)
    (row,) = rows_of(folder)  # the classifier is that of the tiny run
    assert row["stage"] == "localizer"
    assert OWN_TERMS.get(method, "seeds") in row
    run = load_run(folder, device="cpu")
    assert main_localizer(run) == method
    assert list(load_localizers(run)) == ["layercam", method]
    found = json.loads((folder / "evaluation" / "results.json").read_text())["rows"]
    assert [entry["method"] for entry in found][2:] == ["layercam", method] * 4
    assert (folder / "report" / "overlay.mp4").is_file()
    best = load_file(folder / "classifier" / "best_classification.safetensors")
    after = load_file(folder / "localizer" / "last.safetensors")
    assert any(not torch.equal(after[name], tensor) for name, tensor in best.items()) == (method == "pixelcam")
    assert ("decoder.conv.weight" in after) == (method == "pixelcam")
    said = tcam("predict", folder, "--source", next(tiny_run.videos.rglob("*.mp4")), "-o", tmp_path / "boxes.csv")
    assert said.code == 0, said.err
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 9
    assert json.loads((tmp_path / "boxes.csv.meta.json").read_text())["method"] == method


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "more"),
    [("pixelcam", ()), ("fcam", ()), ("negev", ()), ("maxmin", ()), ("tcam", SOFT)],
    ids=["pixelcam", "fcam", "negev", "maxmin", "soft"],
)
def test_two_trainings_leave_the_same_bytes_also_when_one_was_cut_off(method, more, train, tiny_run, monkeypatch):
    settings = ("localizer.epochs=2", "save_every_s=0", "localizer.seeds.foreground=3", "seed=7", *more)
    whole = files_of(train(method, f"{method}-whole", *settings) / "localizer")
    folder = tiny_run.home / "runs" / f"{method}-whole-001"
    assert ("soft" in rows_of(folder)[-1]) == bool(more)
    shutil.rmtree(folder / "localizer")
    (folder / "metrics.jsonl").write_text("")
    optimizer = torch.optim.AdamW if more else torch.optim.SGD
    real, taken = optimizer.step, []

    def step(self, *arguments, **keywords):
        taken.append(1)
        if len(taken) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(optimizer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_the_localizer(folder)
    monkeypatch.setattr(optimizer, "step", real)
    train_the_localizer(folder)
    parts = files_of(folder / "localizer")
    assert parts["last.safetensors"] == whole["last.safetensors"]
    assert parts["best_localization.safetensors"] == whole["best_localization.safetensors"]


@pytest.mark.slow
def test_an_encoder_that_was_frozen_stays_so_in_pixelcam(train):
    folder = train("pixelcam", "pixelcam-frozen", "classifier.freeze_backbone=true")
    before = load_file(folder / "classifier" / "best_classification.safetensors")
    after = load_file(folder / "localizer" / "last.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert changed == {"head.linear.weight", "head.linear.bias"}


@pytest.mark.slow
def test_background_videos_are_listed_and_a_broken_one_stops_nothing(train):
    folder = train("negev", "negev-list")
    stored = json.loads((folder / "index" / "background.json").read_text())
    assert [item["video_id"] for item in stored["records"]] == ["background:more/street.mp4", "background:street.mp4"]
    with (folder / "index" / "errors.csv").open() as stream:
        assert [row["video"] for row in csv.DictReader(stream)] == ["background:broken.mp4"]
    run = load_run(folder, device="cpu")
    assert [(slot.video_id, shot, slot.label) for slot, shot in run.negatives()] == [
        ("background:more/street.mp4", Shot(0, 5), NO_CLASS),
        ("background:street.mp4", Shot(0, 6), NO_CLASS),
    ]


@pytest.mark.slow
def test_negative_evidence_turns_the_maps_of_the_background_down(train, background):
    settings = ("localizer.epochs=8", "localizer.lr=0.05", "localizer.seeds.foreground=20", *WHOLE)
    shares = []
    for weight in (0.0, 5.0):
        folder = train("negev", f"negev-{weight:g}", *settings, f"localizer.negatives.weight={weight}")
        localizer = load_localizers(load_run(folder, device="cpu"))["negev"]
        frames = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        shares.append(float(localizer(frames).maps.mean()))
        rows = [row for row in rows_of(folder) if row["stage"] == "localizer"]
        assert ("negatives" in rows[0]) == (weight > 0)
        if weight:
            assert rows[-1]["negatives"] < rows[0]["negatives"]
    assert shares[1] < shares[0]


def make_run(*overrides: str, truth=(), background=()) -> Run:
    index = VideoIndex(("a", "b"), (record("a/0", 0), record("b/0", 1), record("a/1", 0, split="test")))
    return Run(Path("run"), load_config(None, overrides), CPU, index, truth, background)


def test_marked_frames_of_training_videos_are_negatives_too():
    marked = tuple(FrameTruth(name, frame, 0, ()) for name, frame in (("a/0", 2), ("a/1", 1), ("b/0", 3)))
    run = make_run("method=negev", truth=marked)
    assert [(slot.video_id, shot, slot.label) for slot, shot in run.negatives()] == [
        ("a/0", Shot(2, 3), NO_CLASS),
        ("b/0", Shot(3, 4), NO_CLASS),
    ]
    assert make_run("method=tcam", truth=marked).negatives() == ()


def test_negatives_are_part_of_the_fingerprint():
    one, two = (FrameTruth("a/0", frame, 0, ()) for frame in (1, 2))
    prints = {make_run("method=negev", truth=truth).localizer_stage().fingerprint for truth in ((one,), (two,))}
    assert len(prints) == 2
    pixels = {make_run(*more).localizer_stage().fingerprint for more in ((), ("model.decoder=pixels",))}
    assert len(pixels) == 2
    assert len({make_run(*more).classifier_stage().fingerprint for more in ((), ("model.decoder=pixels",))}) == 1


def test_an_epoch_has_at_most_as_many_clips_without_an_object_as_with_one():
    slots = [(replace(record("x", 0), label=NO_CLASS), Shot(i, i + 1)) for i in range(10)]
    settings = tiny_config("localizer.frames_per_shot=2").localizer
    assert negative_slots(slots[:3], settings, most=20) == [slot for slot in slots[:3] for _ in range(2)]
    assert [shot.start for _, shot in negative_slots(slots, settings, most=5)] == [1, 3, 5, 7, 9]


def test_negev_without_negatives_is_refused_before_anything_is_written(tcam, tiny_videos, tmp_path):
    def refused(*more: object) -> str:
        found = tcam(
            *("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--method", "negev"),
            *set_flags(),
            *more,
        )
        assert found.code == 3, found.err
        assert not (tmp_path / "runs").exists()
        return found.error

    assert "method negev needs frames without any object, found none in " in refused()
    assert "with --background, or mark frames of training videos in boxes.csv" in refused()
    assert "expected a folder of videos without any object, found no folder " in refused("--background", tmp_path / "x")
    (tmp_path / "empty").mkdir()
    assert "expected videos without any object in " in refused("--background", tmp_path / "empty")


def test_marked_frames_outside_the_training_split_are_not_enough():
    run = make_run("method=negev", truth=(FrameTruth("a/1", 0, 0, ()),))
    with pytest.raises(DataError, match="needs training frames without any object, found none: name a folder"):
        find_negatives(run.config, run.index, run.truth, run.background)


def test_a_background_for_another_method_is_refused(tcam, tiny_videos, background, tmp_path):
    found = tcam(
        "train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *set_flags(), "--background", background
    )
    assert found.code == 2
    assert "data.background is of method negev: found " in found.error
    assert not (tmp_path / "runs").exists()
