import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pipelines.config.schema import RunConfig, load_config
from pipelines.data.prepare import Prepared
from pipelines.models.device import Compute
from pipelines.models.localizer import build_network
from pipelines.parallel.placement import Placement
from pipelines.run.log import RunLog
from pipelines.training.cam_cache import CamCache, write_cams
from pipelines.training.divergence import Place
from pipelines.training.loop import TrainingContext
from pipelines.training.stages import train_classifier, train_localizer, training_slots
from pipelines.training.validation import Validator
from tcam.errors import TrainingError
from tcam.model.heads.pooling import POOLINGS
from tcam.model.network import FrameCamNet
from tcam.types import Box, Shot, VideoIndex
from tests.helpers.tiny import CPU, SIDE, record, tiny_config, tiny_localizer


@pytest.fixture(scope="module")
def cam_folder(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("train-cams")
    write_cams(
        tiny_data.index, tiny_localizer(), folder, settings=tiny_config().cam, size=(SIDE, SIDE), placement=Placement()
    )
    return folder


@pytest.fixture
def train(tiny_data, cam_folder, tmp_path):
    """Give a function that trains one stage into a folder and gives the network."""

    def run(stage: str, folder: str, *overrides: str, data: Prepared = tiny_data, spoilt: bool = False) -> FrameCamNet:
        config = tiny_config(*overrides)
        network = build_network(config.model, 2, decoder=stage == "localizer", seed=config.seed)
        if spoilt:
            torch.nn.init.constant_(next(network.backbone.parameters()), torch.nan)
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        with RunLog(target) as log:
            context = make_context(config, data, log, target)
            if stage == "classifier":
                train_classifier(network, context)
            else:
                train_localizer(network, CamCache.open(cam_folder, data.index, config.localizer.temporal), context)
        return network

    return run


def make_context(config: RunConfig, data: Prepared, log: RunLog, folder) -> TrainingContext:
    size = (config.input.crop, config.input.crop)
    validator = Validator(data.index, data.truth, settings=config.evaluation, size=size)
    return TrainingContext(
        config=config, index=data.index, validator=validator, log=log, compute=CPU, folder=folder, fingerprint="f"
    )


def facts_of(path) -> dict[str, object]:
    with safe_open(path, "pt") as stream:
        return {name: json.loads(value) for name, value in stream.metadata().items()}


def rows_of(folder) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def uneven_index() -> VideoIndex:
    return VideoIndex(
        ("a", "b"),
        (
            record("a/0", 0),
            record("b/0", 1, shots=((0, 4),)),
            record("a/1", 0, shots=((0, 2), (2, 4))),
            record("b/1", 1, split="val"),
            record("b/2", 1, split="test"),
        ),
    )


def test_an_epoch_draws_from_every_training_shot_and_no_other():
    slots = training_slots(uneven_index(), load_config(None).classifier)
    assert Counter((item.video_id, shot.start) for item, shot in slots) == {
        ("a/0", 0): 1,
        ("a/1", 0): 1,
        ("a/1", 2): 1,
        ("b/0", 0): 1,
    }


@pytest.mark.parametrize("frames", [1, 3])
def test_balanced_classes_are_drawn_equally_often(frames):
    settings = load_config(None, ["classifier.balance_classes=true", f"classifier.frames_per_shot={frames}"]).classifier
    slots = training_slots(uneven_index(), settings)
    assert Counter(item.label for item, _ in slots) == {0: 3 * frames, 1: 3 * frames}
    assert Counter((item.video_id, shot.start) for item, shot in slots if item.label == 0) == dict.fromkeys(
        [("a/0", 0), ("a/1", 0), ("a/1", 2)], frames
    )


def test_frames_per_shot_repeats_every_shot():
    slots = training_slots(uneven_index(), load_config(None, ["classifier.frames_per_shot=4"]).classifier)
    assert set(Counter((item.video_id, shot.start) for item, shot in slots).values()) == {4}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["classifier", "localizer"])
def test_a_run_resumed_after_an_epoch_ends_with_the_same_weights(stage, train, tmp_path):
    dropping = "model.backbone_options={drop_path_rate: 0.5}"  # draws from the global state of randomness
    train(stage, "whole", f"{stage}.epochs=2", dropping)
    train(stage, "parts", f"{stage}.epochs=1", dropping)
    first = load_file(tmp_path / "parts" / "last.safetensors")
    train(stage, "parts", f"{stage}.epochs=2", dropping)
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert not all(torch.equal(first[name], parts[name]) for name in first)
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")
    assert [row["epoch"] for row in rows_of(tmp_path / "whole")] == [1, 2]


def test_the_learning_rate_falls_by_steps_and_is_higher_for_the_last_level_and_the_head(train, tmp_path):
    settings = ["lr=0.02", "lr_step=2", "lr_gamma=0.5", "late_lr_ratio=3.0"]
    for epochs, lr in ((1, 0.02), (2, 0.02), (3, 0.01)):
        train("classifier", "run", f"classifier.epochs={epochs}", *(f"classifier.{text}" for text in settings))
        groups = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["optimizer"]["param_groups"]
        assert sorted(group["lr"] for group in groups) == pytest.approx([lr, 3 * lr])
        assert all(group["nesterov"] for group in groups)


def test_a_classifier_epoch_leaves_checkpoints_with_facts(train, tmp_path):
    network = train("classifier", "run")
    folder = tmp_path / "run"
    assert {path.name for path in folder.glob("*.safetensors")} == {
        "best_classification.safetensors",
        "best_localization.safetensors",
        "last.safetensors",
    }
    facts = facts_of(folder / "best_localization.safetensors")
    assert (facts["stage"], facts["epoch"], facts["classes"]) == ("classifier", 1, ["beetle", "fish"])
    (row,) = rows_of(folder)
    assert set(row) == {"stage", "epoch", "classes", "val_corloc", "val_accuracy"}
    assert facts["metrics"]["classes"] == pytest.approx(row["classes"], rel=1e-5)
    saved = load_file(folder / "last.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in network.state_dict().items())


def test_without_validation_the_newest_weights_are_the_best(train, tiny_data, tmp_path):
    index = VideoIndex(tiny_data.index.class_names, tiny_data.index.of_split("train"))
    train("classifier", "run", "classifier.epochs=2", data=Prepared(index, (), (), ""))
    for name in ("best_classification", "best_localization"):
        assert facts_of(tmp_path / "run" / f"{name}.safetensors")["epoch"] == 2
    assert "val_accuracy" not in rows_of(tmp_path / "run")[0]


def test_frozen_batch_norm_keeps_its_statistics_while_the_rest_learns(train):
    trained = train("classifier", "run", "classifier.freeze_batch_norm=true", "classifier.lr=0.1")
    fresh = build_network(tiny_config().model, 2, decoder=False, seed=0)
    norms = {name for name, module in fresh.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    before, after = fresh.state_dict(), trained.state_dict()
    fixed = {name for name in before if name.rpartition(".")[0] in norms}
    assert any(name.endswith("running_mean") for name in fixed)
    assert all(torch.equal(before[name], after[name]) for name in fixed)
    assert not any(torch.equal(before[name], after[name]) for name in before.keys() - fixed if "weight" in name)


def test_a_frozen_backbone_leaves_only_the_head_to_learn(train):
    trained = train("classifier", "run", "classifier.freeze_backbone=true", "classifier.lr=0.1")
    before, after = build_network(tiny_config().model, 2, decoder=False, seed=0).state_dict(), trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("head.")}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_part_of_every_class_head_learns(train, pooling):
    overrides = (f"model.pooling={pooling}", "cam.method=cam")
    before = build_network(tiny_config(*overrides).model, 2, decoder=False, seed=0).state_dict()
    after = train("classifier", "run", "classifier.lr=0.1", *overrides).state_dict()
    head = {name for name in before if name.startswith("head.")}
    assert head
    assert [name for name in head if torch.equal(before[name], after[name])] == []
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_a_localizer_epoch_changes_the_decoder_and_nothing_of_the_classifier(train, tmp_path):
    trained = train("localizer", "run")
    before = build_network(tiny_config().model, 2, decoder=True, seed=0).state_dict()
    after = trained.state_dict()
    decoder = {name for name in before if name.startswith("decoder.")}
    assert any(name.endswith("running_mean") for name in before.keys() - decoder)
    assert [name for name in before.keys() - decoder if not torch.equal(before[name], after[name])] == []
    assert not any(torch.equal(before[name], after[name]) for name in decoder if name.endswith("weight"))
    (row,) = rows_of(tmp_path / "run")
    assert {"seeds", "crf", "size"} <= set(row)
    assert not (tmp_path / "run" / "best_classification.safetensors").exists()


COLOCAM = ("method=colocam", "localizer.sequence.frames=2", "localizer.frame_limit=1.0")


def test_colocam_trains_on_sequences_with_a_joint_term(train, tmp_path):
    train("localizer", "run", *COLOCAM, "localizer.epochs=2")
    rows = rows_of(tmp_path / "run")
    assert [set(row) & {"seeds", "crf", "size", "joint"} for row in rows] == [{"seeds", "crf", "size", "joint"}] * 2
    assert [row["joint"] for row in rows] == [-4.0, -4.0]  # the adaptive term is its weight, negative


FEATURES = ("localizer.joint.space=features", "localizer.joint.sigma_features=0.5")


def test_colocam_trains_with_features_in_place_of_colours(train, tmp_path):
    found = {}
    for space in ((), FEATURES):
        name = "features" if space else "colour"
        network = train("localizer", name, *COLOCAM, *space, "localizer.joint.adaptive=false", "localizer.lr=0.001")
        (row,) = rows_of(tmp_path / name)
        found[name] = (row["joint"] / 4, network.state_dict())
    positions = 2 * (SIDE // 16) ** 2  # of two frames; 1^T K 1 of their kernel is between 32 and 32 squared
    assert -(positions**2) <= found["features"][0] <= -positions / 2
    assert found["colour"][0] < -(positions**2)
    decoders = [{k: v for k, v in state.items() if k.startswith("decoder.")} for _, state in found.values()]
    assert not all(torch.equal(value, decoders[1][name]) for name, value in decoders[0].items())


def test_sequences_of_features_train_on_spread_frames(train, tmp_path):
    train("localizer", "run", *COLOCAM, *FEATURES, "localizer.epochs=2", "localizer.frame_choices=3")
    assert [row["joint"] for row in rows_of(tmp_path / "run")] == [-4.0, -4.0]


def test_sequences_longer_than_a_shot_are_as_long_as_it(train, tmp_path):
    longer = ("localizer.sequence.frames=20", "localizer.batch=20", "localizer.joint.adaptive=false")
    train("localizer", "run", *COLOCAM, *longer)
    assert rows_of(tmp_path / "run")[0]["joint"] < -1e3


def test_shots_of_one_frame_train_without_a_joint_term(train, tiny_data, tmp_path):
    records = [
        dataclasses.replace(item, shots=(Shot(0, 1),)) if item.split == "train" else item
        for item in tiny_data.index.records
    ]
    index = dataclasses.replace(tiny_data.index, records=tuple(records))
    train("localizer", "run", *COLOCAM, data=dataclasses.replace(tiny_data, index=index))
    assert rows_of(tmp_path / "run")[0]["joint"] == 0.0


def test_a_loss_without_weight_is_left_out(train, tmp_path):
    train("localizer", "run", "localizer.crf.weight=0", "localizer.size.weight=0")
    assert set(rows_of(tmp_path / "run")[0]) == {"stage", "epoch", "seeds", "val_corloc", "val_accuracy"}


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(train, tmp_path):
    message = (
        r"localizer stopped in epoch 1: loss term 'crf' is not finite \(seeds = .*, crf = -?(inf|nan), size = .*\); "
        "no step is made yet, so look at the settings of 'crf'$"
    )
    with pytest.raises(TrainingError, match=message):
        train("localizer", "run", "localizer.crf.weight=1e300")
    with pytest.raises(TrainingError, match=r"localizer stopped in epoch 1: loss term 'joint' is not finite"):
        train("localizer", "joint", *COLOCAM, "localizer.joint.weight=1e300", "localizer.joint.adaptive=false")
    with pytest.raises(
        TrainingError, match=r"classifier stopped in epoch 1: loss term 'classes' .*; try a lower classifier\.lr$"
    ):
        train("classifier", "other", "classifier.lr=1e30")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("stage", "method"),
    [("classifier", "tcam"), ("localizer", "tcam"), ("localizer", "pixelcam"), ("localizer", "negev")],
)
def test_a_last_step_that_diverges_stops_the_stage_that_made_it(train, tmp_path, stage, method):
    message = rf"^{stage} stopped at the end of epoch 1: what its network .* is not finite; try a lower {stage}\.lr$"
    with pytest.raises(TrainingError, match=message):
        train(stage, "run", f"method={method}", f"{stage}.lr=1e30", f"{stage}.batch=64")  # one step alone
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("stage", "advice"),
    [
        ("classifier", "no step is made yet, so try other model.weights"),
        ("localizer", "the classifier had diverged: try a new run with a lower classifier.lr"),
    ],
)
def test_a_network_that_was_spoilt_before_is_not_laid_to_the_learning_rate(train, stage, advice):
    with pytest.raises(TrainingError, match=rf"is not finite \(.*\); {advice}$"):
        train(stage, "run", spoilt=True)


def test_arithmetic_of_16_bits_is_named_as_a_cause():
    place = Place("classifier", 3, True, Compute(torch.device("cpu"), torch.bfloat16))
    with pytest.raises(TrainingError, match=r"epoch 3: .*; try a lower classifier\.lr, or precision=fp32$"):
        place.check_losses({"classes": float("nan")}, tiny_localizer().network, torch.zeros(1, 3, SIDE, SIDE))


def test_maps_that_are_not_numbers_stop_the_run(tiny_data, cam_folder, tmp_path):
    config = tiny_config(*COLOCAM, "localizer.seeds.weight=0", "localizer.crf.weight=0", "localizer.size.weight=0")
    network = build_network(config.model, 2, decoder=True, seed=0)
    with torch.no_grad():
        next(network.decoder.parameters()).fill_(torch.nan)
    cams = CamCache.open(cam_folder, tiny_data.index, config.localizer.temporal)
    message = r"localizer stopped in epoch 1: loss term 'joint' is not finite \(joint = nan\)"
    with RunLog(tmp_path) as log, pytest.raises(TrainingError, match=message):
        train_localizer(network, cams, make_context(config, tiny_data, log, tmp_path))


@pytest.mark.parametrize("seeds", [1, 0])
def test_empty_cams_teach_background_and_nothing_else_breaks(tiny_data, cam_folder, tmp_path, seeds):
    for path in cam_folder.glob("*.npy"):
        np.save(tmp_path / path.name, np.zeros_like(np.load(path)))
    config = tiny_config("localizer.epochs=2", f"localizer.seeds.weight={seeds}", "localizer.soft.weight=1")
    network = build_network(config.model, 2, decoder=True, seed=0)
    cams = CamCache.open(tmp_path, tiny_data.index, config.localizer.temporal)
    with RunLog(tmp_path) as log:
        train_localizer(network, cams, make_context(config, tiny_data, log, tmp_path))
    first, last = rows_of(tmp_path)
    assert last["soft"] < first["soft"]
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_as_long_as_no_validation_box_is_hit_the_newest_weights_are_the_best(train, tiny_data, tmp_path):
    corner = tuple(dataclasses.replace(item, boxes=(Box(0, 0, 2, 2),)) for item in tiny_data.truth if item.boxes)
    data = dataclasses.replace(tiny_data, truth=corner)
    train("localizer", "run", "localizer.epochs=2", data=data)
    assert [row["val_corloc"] for row in rows_of(tmp_path / "run")] == [0, 0]
    assert facts_of(tmp_path / "run" / "best_localization.safetensors")["epoch"] == 2
