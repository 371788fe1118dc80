"""Runs of ``cam.method=prior``: the ratio that is measured, a whole run, what is refused, and an exported file."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer, build_classifier
from pipelines.models.run import load_localizers, load_run
from pipelines.pipeline import check_settings
from pipelines.run.log import RunLog
from pipelines.training import run_stage
from pipelines.training.distributed.process_group import ProcessGroup
from pipelines.training.loop import TrainingContext
from pipelines.training.stages import train_classifier
from pipelines.training.tag_prior import frame_shares, measure_tag_prior, prior_frames
from pipelines.training.validation import Validator
from tcam.errors import ConfigError, WeightsError
from tcam.model.backbone import load_backbone_weights
from tcam.model.imagenet_head import read_imagenet_head
from tcam.model.tag_prior import ratio_of
from tcam.types import NO_CLASS, VideoIndex
from tcam.video.dataset import OpenReaders
from tests.helpers.tiny import (
    CPU,
    SETTINGS,
    SIDE,
    WHOLE,
    files_of,
    record,
    set_flags,
    tiny_config,
    write_imagenet_weights,
)

pytestmark = pytest.mark.together


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_imagenet_weights(tmp_path_factory.mktemp("weights") / "resnet.safetensors")


def prior_settings(weights: Path) -> tuple[str, ...]:
    return (*WHOLE, "cam.method=prior", "classifier.freeze_backbone=true", f"model.weights={weights}")


@pytest.fixture
def classifier(weights):
    """A classifier of two tags with pretrained backbone and ImageNet classifier."""
    network = build_classifier(tiny_config(*prior_settings(weights)), 2)
    load_backbone_weights(network.backbone, str(weights))
    network.prior.set_classifier(*read_imagenet_head(network.backbone, str(weights)))
    return network


@pytest.fixture(scope="module")
def prior_run(weights, tiny_videos, tmp_path_factory) -> Path:
    """A finished TCAM run whose seeds are prior CAMs, and beside it a cam run; read only."""
    from pipelines.commands.train import start_or_resume

    home = tmp_path_factory.mktemp("prior")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCAM_HOME", str(home))
        settings = (*SETTINGS, *prior_settings(weights), "classifier.epochs=2")
        folder = start_or_resume(tiny_videos, overrides=settings, name="x", runs=home / "runs", quiet=True).folder
        settings = (*settings, "method=cam")
        start_or_resume(tiny_videos, overrides=settings, name="cam", runs=home / "runs", quiet=True)
    return folder


def test_frames_are_some_of_every_shot_of_tagged_training_videos():
    long, short = record("a/long", 0, shots=((0, 3), (3, 19))), record("b/short", 1)
    others = (record("b/val", 1, split="val"), record("none", NO_CLASS))
    found = prior_frames(VideoIndex(("a", "b"), (long, short, *others)))
    assert found == [
        *((long, frame) for frame in (0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18)),
        *((short, frame) for frame in range(4)),
    ]


def test_videos_of_a_tag_count_alike():
    one, two, other = record("a/1", 0), record("a/2", 0), record("c/1", 2)
    found = frame_shares([one, one, one, two, other, other], 3)
    third = 1 / 6
    assert found[0].tolist() == pytest.approx([third, third, third, 1 / 2, 0, 0])
    assert found[1].tolist() == [0] * 6
    assert found[2].tolist() == [0, 0, 0, 0, 1 / 2, 1 / 2]


def test_the_ratio_is_that_of_the_training_videos_whatever_the_batch(classifier, tiny_data):
    per_tag = []
    readers = OpenReaders((SIDE, SIDE))
    with torch.no_grad():
        for label in (0, 1):
            videos = [item for item in tiny_data.index.of_split("train") if item.label == label]
            means = []
            for video in videos:
                frames = readers.read(video, [frame for item, frame in prior_frames(tiny_data.index) if item == video])
                means.append(classifier.prior.probabilities(classifier.eval().pyramid(frames).last).mean(0))
            per_tag.append(torch.stack(means).mean(0))
    expected = ratio_of(torch.stack(per_tag))
    assert (expected[0] - expected[1]).abs().max() > 0.1
    for batch in (3, 32):
        before = torch.get_rng_state()
        classifier.train()
        measure_tag_prior(classifier, tiny_data.index, size=(SIDE, SIDE), batch=batch, compute=CPU)
        torch.testing.assert_close(classifier.prior.ratio, expected, rtol=1e-3, atol=1e-5)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_run_trains_predicts_and_evaluates(prior_run, tcam, tiny_videos):
    rows = json.loads((prior_run / "evaluation" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows][2:] == ["prior", "tcam"] * 4
    assert json.loads((prior_run / "cams" / "header.json").read_text())["method"] == "prior"
    localizers = load_localizers(load_run(prior_run, device="cpu"))
    assert list(localizers) == ["prior", "tcam"]
    prior = localizers["prior"].network.prior
    assert prior.ratio.std() > 0.1
    assert localizers["tcam"].network.prior is None
    cam_run = prior_run.parent / "cam-001"
    for command in (
        ("predict", prior_run, "--source", next(tiny_videos.rglob("*.mp4")), "-o", "-"),
        ("predict", cam_run, "--source", next(tiny_videos.rglob("*.mp4")), "-o", "-"),
        ("evaluate", cam_run, "--videos", tiny_videos),
    ):
        found = tcam(*command)
        assert found.code == 0, found.err


def test_the_kept_epoch_is_the_one_that_classifies_best(classifier, weights, tiny_data, tmp_path):
    """The maps are the same in all epochs: they cannot choose one."""
    fish = tiny_data.index.class_names.index("fish")
    only_fish = tuple(item for item in tiny_data.index.records if item.label == fish)
    index = VideoIndex(tiny_data.index.class_names, only_fish)
    with torch.no_grad():  # the head begins certain of the other class, and has to unlearn it
        classifier.head.weight.zero_()
        classifier.head.linear.bias.copy_(torch.tensor([4.0, -4.0]))
    config = tiny_config(*prior_settings(weights), "classifier.epochs=6", "classifier.lr=0.05")
    validator = Validator(index, tiny_data.truth, settings=config.evaluation, size=(SIDE, SIDE))
    with RunLog(tmp_path) as log:
        train_classifier(classifier, TrainingContext(config, index, validator, log, CPU, tmp_path, "f"))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (rows[0]["val_accuracy"], rows[-1]["val_accuracy"]) == (0, 100)
    assert len({row["val_corloc"] for row in rows}) == 1
    best = [tmp_path / f"best_{name}.safetensors" for name in ("localization", "classification")]
    assert best[0].read_bytes() == best[1].read_bytes()


@pytest.mark.slow
def test_packed_and_unpacked_it_makes_the_same_maps(prior_run):
    localizer = load_localizers(load_run(prior_run, device="cpu"))["prior"]
    frames = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    zero, one = (localizer(frames, torch.full((3,), label)).maps for label in (0, 1))
    assert zero.amax() > 0.9
    assert not torch.equal(zero, one)
    assert torch.equal(PackedLocalizer.pack(localizer).unpack()(frames, torch.zeros(3, dtype=torch.long)).maps, zero)


@pytest.mark.slow
def test_the_map_of_a_frame_does_not_depend_on_the_trained_head(prior_run):
    localizer = load_localizers(load_run(prior_run, device="cpu"))["prior"]
    frames, labels = torch.full((1, 3, SIDE, SIDE), 90, dtype=torch.uint8), torch.tensor([1])
    frames[:, :, 20:40, 10:30] = 200
    before = localizer(frames, labels).maps
    with torch.no_grad():
        localizer.network.head.weight.neg_()
    assert torch.equal(localizer(frames, labels).maps, before)


@pytest.mark.slow
def test_an_export_gives_the_boxes_of_its_run(prior_run, tcam, tiny_videos, tmp_path):
    run, video = prior_run.parent / "cam-001", next(tiny_videos.rglob("*.mp4"))
    done = tcam("export", run, "--format", "torch-export", "-o", tmp_path / "prior.pt2")
    assert done.code == 0, done.err
    tables = [tcam("predict", model, "--source", video, "-o", "-").out for model in (run, tmp_path / "prior.pt2")]
    boxes = [[line.split(",")[:8] for line in table.splitlines()] for table in tables]
    assert boxes[0] == boxes[1]
    assert len(boxes[0]) == 8


def stage_of(prior_run, tiny_videos, folder, group=None) -> dict[str, bytes]:
    """Train the classifier stage of the run again, in another folder, with the settings and data of the run."""
    shutil.copytree(prior_run, folder, ignore=shutil.ignore_patterns("classifier", "cams", "localizer"))
    run = dataclasses.replace(load_run(folder, device="cpu"), compute=CPU)
    validator = Validator(run.index, run.truth, settings=run.config.evaluation, size=run.input_size)
    with RunLog(folder) as log:
        run_stage.train_here(run, "classifier", validator, log)
    return files_of(folder / "classifier")


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bytes(prior_run, tiny_videos, tmp_path, monkeypatch):
    whole = stage_of(prior_run, tiny_videos, tmp_path / "whole")
    real, steps = torch.optim.SGD.step, iter(range(3))

    def step(self, *arguments, **keywords):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return real(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        with pytest.raises(KeyboardInterrupt):
            stage_of(prior_run, tiny_videos, tmp_path / "parts")
    run = dataclasses.replace(load_run(tmp_path / "parts", device="cpu"), compute=CPU)
    assert (run.folder / "classifier" / "resume.pt").is_file()
    validator = Validator(run.index, run.truth, settings=run.config.evaluation, size=run.input_size)
    with RunLog(run.folder) as log:
        run_stage.train_here(run, "classifier", validator, log)
    parts = files_of(run.folder / "classifier")
    kept = [name for name in whole if name.endswith(".safetensors")]
    assert len(kept) == 3
    assert all(parts[name] == whole[name] for name in kept)


@pytest.mark.slow
def test_other_processes_of_a_group_do_not_measure(prior_run, weights, monkeypatch):
    measured, trained = [], []
    monkeypatch.setattr(run_stage, "measure_tag_prior", lambda *_, **__: measured.append(1))
    monkeypatch.setattr(run_stage, "train_classifier", lambda network, _: trained.append(network))
    run = load_run(prior_run, device="cpu")
    validator = Validator(run.index, run.truth, settings=run.config.evaluation, size=run.input_size)
    for rank in (1, 0):
        run_stage.train_here(run, "classifier", validator, None, ProcessGroup(rank, 2))
    assert (len(measured), len(trained)) == (1, 2)
    assert all(torch.equal(network.prior.weight, load_file(weights)["fc.weight"].float()) for network in trained)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (["model.weights=random"], ConfigError, "expected --weights imagenet or a weight file, found random"),
        (
            ["classifier.freeze_backbone=false"],
            ConfigError,
            "expects classifier.freeze_backbone=true, found false: the ImageNet classifier fits only the backbone",
        ),
        (["model.levels_used=4"], ConfigError, "model.levels_used leaves the last level out: set it to null"),
        (["model.weights={part}"], WeightsError, r"expected fc.weight \[1000, 96\] in .*, found no such layer"),
        (
            ["model.backbone=test_convnext", "model.output_stride=null", "model.weights={convnext}"],
            ConfigError,
            "linear in the mean of the last features; that of model 'test_convnext' is not",
        ),
    ],
)
def test_what_has_no_usable_imagenet_classifier_is_refused_before_anything_runs(
    weights, tmp_path, changes, kind, message
):
    files = {"part": tmp_path / "part.safetensors", "convnext": tmp_path / "convnext.safetensors"}
    save_file({name: value for name, value in load_file(weights).items() if not name.startswith("fc.")}, files["part"])
    save_file(timm.create_model("test_convnext").state_dict(), files["convnext"])
    config = tiny_config(*prior_settings(weights), "method=cam", *(change.format(**files) for change in changes))
    with pytest.raises(kind, match=message) as caught:
        check_settings(config)
    assert "\n" not in str(caught.value)
    assert "cam.method" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "code"), [("classifier.freeze_backbone=false", 2), ("model.weights=random", 2), ("", 5)]
)
def test_a_refusal_leaves_nothing_behind(tcam, tiny_videos, weights, tmp_path, change, code):
    part = tmp_path / "part.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if not name.startswith("fc.")}, part)
    settings = (*SETTINGS, *prior_settings(weights), change or f"model.weights={part}")
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *set_flags(settings))
    assert (found.code, "choose another cam.method" in found.error) == (code, True)
    assert not (tmp_path / "runs").exists()


def test_other_methods_have_no_prior():
    assert build_classifier(tiny_config("method=cam"), 2).prior is None
    network = build_classifier(tiny_config(*WHOLE, "method=cam", "cam.method=prior"), 3)
    assert network.prior.ratio.shape == (3, 1000)
    assert NetworkLocalizer(network.eval(), "prior", CPU).network.fused() is network


@pytest.mark.real
@pytest.mark.slow
def test_shared_weights_without_the_classifier_are_refused(shared_data):
    file = shared_data / "weights" / "resnet18_tv_conv1-layer3_fp16.safetensors"
    config = tiny_config("method=cam", *prior_settings(file), "model.backbone=resnet18")
    with pytest.raises(WeightsError, match="layers are missing"):
        check_settings(config)
    config = tiny_config(
        "method=cam", *prior_settings(file), "model.backbone=resnet18", "model.allow_missing=[layer4.]"
    )
    with pytest.raises(WeightsError, match=r"expected fc.weight \[1000, 512\] in .*, found no such layer"):
        check_settings(config)
