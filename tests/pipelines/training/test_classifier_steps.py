"""Every baseline of the classifier in a training: it learns, resumes, shares batches, and leaves a plain network."""

import dataclasses
import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.schema import ClassifierSettings, load_config, save_config
from pipelines.models.localizer import NetworkLocalizer, build_network
from pipelines.models.run import Run
from pipelines.pipeline import check_settings
from pipelines.run.log import RunLog
from pipelines.training.classifier_steps import (
    check_baseline,
    check_one_tag,
    classifier_step,
    tag_loss,
    tags_by_video,
)
from pipelines.training.distributed.process_group import BatchShard
from pipelines.training.loop import TrainingContext
from pipelines.training.stages import train_classifier
from pipelines.training.validation import Validator
from tcam.errors import ConfigError
from tcam.model.heads.acol import Acol
from tcam.types import VideoIndex
from tests.helpers.tiny import CPU, SETTINGS, SIDE, files_of, record, set_flags, tiny_config

BASELINES = [name for name in get_args(ClassifierSettings.model_fields["baseline"].annotation) if name != "none"]


def baseline(name: str, *more: str) -> tuple[str, ...]:
    return (f"classifier.baseline={name}", "classifier.hide_and_seek.patches=[8,16]", *more)


@pytest.fixture
def train(tiny_data, tmp_path):
    """Give a function that trains a classifier into a folder, or goes on there; gives the network."""

    def run(folder: str, *overrides: str):
        config, target = tiny_config(*overrides), tmp_path / folder
        target.mkdir(exist_ok=True)
        network = build_network(config.model, 2, decoder=False, seed=config.seed)
        validator = Validator(tiny_data.index, tiny_data.truth, settings=config.evaluation, size=(SIDE, SIDE))
        with RunLog(target) as log:
            train_classifier(network, TrainingContext(config, tiny_data.index, validator, log, CPU, target, "f"))
        return network

    return run


def rows_of(folder) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def step_of(name: str, *more: str):
    config = tiny_config(*baseline(name, *more))
    network = build_network(config.model, 2, decoder=False, seed=0)
    return classifier_step(config.classifier, network), network


def some_batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return frames, torch.arange(count) % 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_a_few_steps_change_every_weight_and_end_otherwise_than_without(name, train, tmp_path):
    fast = ("classifier.lr=0.02", "classifier.epochs=2")
    network, plain = train(name, *baseline(name, *fast)), train("plain", *fast)
    before = build_network(tiny_config(*baseline(name)).model, 2, decoder=False, seed=0).state_dict()
    after = network.state_dict()
    assert [key for key in before if key.endswith("weight") and torch.equal(before[key], after[key])] == []
    assert all(tensor.isfinite().all() for tensor in after.values())
    first = next(plain.backbone.parameters())
    assert not torch.equal(first, next(network.backbone.parameters()))
    assert not any(module._forward_hooks for module in network.modules())
    extra = {"erased"} if name == "acol" else set()
    assert set(rows_of(tmp_path / name)[0]) == {"stage", "epoch", "classes", "val_corloc", "val_accuracy"} | extra


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_cut_off_in_the_middle_it_ends_the_same_byte_for_byte(name, train, tmp_path, monkeypatch):
    settings = baseline(name, "classifier.epochs=2", "classifier.frames_per_shot=2", "save_every_s=0")
    train("whole", *settings)
    real, left = torch.optim.SGD.step, iter(range(5))

    def step(self, *arguments, **keywords):
        if next(left, None) is None:
            raise KeyboardInterrupt  # as a kill would
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train("parts", *settings)
    monkeypatch.undo()
    train("parts", *settings)
    whole, parts = (
        {path: data for path, data in files_of(tmp_path / folder).items() if not path.startswith("events.")}
        for folder in ("whole", "parts")
    )
    assert [path for path in whole if whole[path] != parts[path]] == []


@pytest.mark.parametrize("name", BASELINES)
def test_at_inference_the_network_is_the_plain_one(name):
    step, network = step_of(name)
    frames, labels = some_batch()
    with torch.no_grad():
        network.eval()
        before = network(frames)
        step(frames, labels, BatchShard(0, 4, 4), seeded())
        after = network(frames)
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.class_logits, after.class_logits)


@pytest.mark.parametrize("name", ["none", "hide_and_seek", "adl", "acol"])
def test_shares_of_a_batch_make_the_loss_of_the_whole(name):
    step, network = step_of(name)
    network.eval()  # BatchNorm over shares is another matter
    frames, labels = some_batch(5)
    with torch.no_grad():
        whole = step(frames, labels, BatchShard(0, 5, 5), seeded()).terms
        parts = [
            step(frames[first:stop], labels[first:stop], BatchShard(first, stop, 5), seeded()).terms
            for first, stop in ((0, 2), (2, 5))
        ]
    for term, value in whole.items():
        torch.testing.assert_close((2 * parts[0][term] + 3 * parts[1][term]) / 5, value)


@pytest.mark.parametrize("name", BASELINES)
def test_every_share_leaves_the_generator_alike(name):
    step, _ = step_of(name)
    frames, labels = some_batch(5)
    left = []
    for first, stop in ((0, 2), (2, 5)):
        generator = seeded()
        step(frames[first:stop], labels[first:stop], BatchShard(first, stop, 5), generator)
        left.append(generator.get_state())
    assert torch.equal(*left)


def test_hidden_pixels_have_the_colour_that_the_network_takes_for_zero():
    config = tiny_config(*baseline("hide_and_seek", "classifier.hide_and_seek.hide=1"))
    network = build_network(config.model, 2, decoder=False, seed=0).eval()
    seen = []
    network.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    frames, labels = some_batch(8)
    with torch.no_grad():
        classifier_step(config.classifier, network)(frames, labels, BatchShard(0, 8, 8), seeded())
    (images,) = seen
    hidden = [float(image.abs().amax()) < 0.01 for image in images]
    assert any(hidden)  # those that drew to stay whole are not
    assert not all(hidden)


def test_acol_is_head_and_loss_and_its_maps_are_fused():
    config = tiny_config(*baseline("acol"))
    network = build_network(config.model, 2, decoder=False, seed=0).eval()
    assert isinstance(network.head, Acol)
    frames, labels = some_batch(2)
    found = NetworkLocalizer(network, config.cam.method, CPU)(frames, labels)
    with torch.no_grad():
        fused = network.head.class_maps(network(frames).features, labels)
    low, high = fused.amin(dim=(1, 2), keepdim=True), fused.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(
        found.maps,
        torch.nn.functional.interpolate(((fused - low) / (high - low))[:, None], (SIDE, SIDE), mode="bilinear")[:, 0],
    )


@pytest.mark.parametrize("override", ["classifier.baseline=acol", "model.pooling=acol"])
def test_acol_by_either_name_is_the_same(override, tmp_path):
    config = load_config(None, [override])
    assert (config.classifier.baseline, config.model.pooling, config.cam.method) == ("acol", "acol", "cam")
    assert load_config(None, [override, "cam.method=gradcam"]).cam.method == "gradcam"
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["classifier.baseline=dropout"], "'classifier.baseline': .*'hide_and_seek', 'cutmix', 'adl' or 'acol'"),
        (["classifier.baseline=acol", "model.pooling=gap"], "acol go together: found acol and gap"),
        (["classifier.baseline=adl", "model.pooling=acol"], "acol go together: found adl and acol"),
        (["classifier.baseline=adl", "classifier.freeze_backbone=true"], "baseline adl teaches the backbone"),
        (["classifier.hide_and_seek.patches=[]"], "'classifier.hide_and_seek.patches': .*at least 1"),
        (["classifier.cutmix.probability=0"], "'classifier.cutmix.probability': .*greater than 0"),
        (["classifier.adl.gamma=0.5"], "unknown setting 'classifier.adl.gamma': known here: drop_rate, threshold"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, overrides)
    assert "\n" not in str(caught.value)


def test_a_network_that_adl_cannot_act_on_is_found_before_anything_runs():
    check_settings(tiny_config("classifier.baseline=adl"))
    with pytest.raises(ConfigError, match=r"ADL needs 4 levels .*: found 3 in model 'test_resnet'"):
        check_settings(tiny_config(*baseline("adl", "classifier.adl.levels=4")))
    check_baseline(tiny_config().classifier, step_of("none")[1])


def test_constants_matter_to_a_finished_classifier_only_with_their_baseline():
    index = VideoIndex(("a", "b"), (record("a/x.mp4", 0), record("b/y.mp4", 1, split="val")))

    def fingerprint(*overrides: str) -> str:
        return Run(Path("/nowhere"), load_config(None, overrides), CPU, index, ()).classifier_stage().fingerprint

    assert fingerprint("classifier.adl.levels=2", "classifier.cutmix.probability=0.5") == fingerprint()
    prints = {name: fingerprint(f"classifier.baseline={name}") for name in BASELINES}
    assert len({fingerprint(), *prints.values()}) == len(BASELINES) + 1
    assert fingerprint("classifier.baseline=adl", "classifier.cutmix.probability=0.5") == prints["adl"]
    assert fingerprint("classifier.baseline=adl", "classifier.adl.levels=2") != prints["adl"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_a_run_of_every_baseline_ends_with_boxes(name, tcam, tiny_videos, tmp_path):
    found = tcam(
        *("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--name", "x"),
        *set_flags((*SETTINGS, *baseline(name))),
    )
    assert found.code == 0, found.err
    saved = load_file(tmp_path / "runs" / "x-001" / "classifier" / "best_localization.safetensors")
    assert all(key.startswith(("backbone.", "head.")) for key in saved)
    found = tcam("predict", tmp_path / "runs" / "x-001", "--source", next(tiny_videos.rglob("*.mp4")), "-o", "-")
    assert found.code == 0, found.err
    assert len(found.out.splitlines()) == 8


def test_the_loss_of_several_tags_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(3.0), 0.0]])
    one = tag_loss(logits, torch.tensor([1, 1]))
    assert float(one.total) == pytest.approx((-math.log(3 / 4) - math.log(1 / 4)) / 2)
    several = tag_loss(logits, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    # Of each frame, the binary cross-entropies of both classes: p = 1/2 and 3/4, then 3/4 (not a tag) and 1/2.
    errors = (-math.log(1 / 2) - math.log(3 / 4), -math.log(1 / 4) - math.log(1 / 2))
    assert float(several.total) == pytest.approx(sum(errors) / 2)
    assert several.counts == {"classes": 2}


def two_tags(name: str, label: int, also: int, **more):
    return dataclasses.replace(record(name, label, **more), also=(also,))


def test_tags_of_a_video_are_all_its_tags():
    records = (record("a", 0), two_tags("fish:b", 0, 2), two_tags("bird:b", 2, 0), record("c", 1, split="val"))
    found = tags_by_video(VideoIndex(("fish", "cat", "bird"), records))
    assert {video: tags.tolist() for video, tags in found.items()} == {
        "a": [1, 0, 0],
        "fish:b": [1, 0, 1],
        "bird:b": [1, 0, 1],
        "c": [0, 1, 0],
    }
    assert tags_by_video(VideoIndex(("fish", "cat"), (record("a", 0), two_tags("b", 0, 1, split="test")))) is None


@pytest.mark.parametrize("name", ["none", "hide_and_seek", "adl"])
def test_baselines_learn_several_tags(name):
    step, network = step_of(name)
    frames, _ = some_batch()
    generator = torch.Generator().manual_seed(0)
    losses = step(frames, torch.ones(4, 2), BatchShard(0, 4, 4), generator)
    losses.total.backward()
    assert network.head.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (baseline("cutmix"), "classifier.baseline=cutmix needs one tag per video, and fish:b has several"),
        (baseline("acol"), "classifier.baseline=acol needs one tag per video"),
        (("method=maxmin",), "method maxmin needs one tag per video"),
        (("method=pixelcam",), "method pixelcam needs one tag per video"),
        (("method=negev",), "method negev needs one tag per video"),
    ],
)
def test_what_needs_one_tag_is_refused_where_videos_have_several(overrides, message):
    one_tag = VideoIndex(("fish", "cat"), (record("a", 0), record("c", 1)))
    config = tiny_config(*overrides)
    check_one_tag(config, one_tag)
    check_one_tag(tiny_config(), one_tag)
    several = VideoIndex(("fish", "cat"), (record("a", 0), two_tags("fish:b", 0, 1), two_tags("cat:b", 1, 0)))
    check_one_tag(tiny_config(), several)
    with pytest.raises(ConfigError, match=message):
        check_one_tag(config, several)
