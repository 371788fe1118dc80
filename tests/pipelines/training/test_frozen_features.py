"""Features of a frozen backbone that are computed once, and the rounds of training that need them again and again."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from pipelines.commands.train import start_or_resume
from pipelines.models.localizer import build_network
from pipelines.models.run import Run, load_run
from pipelines.training import frozen_features
from pipelines.training.frozen_features import FrameReader, FrozenFeatures, mirror_some
from tcam.model.backbone import Pyramid
from tcam.types import ClipBatch
from tcam.video.dataset import OpenReaders
from tests.helpers.tiny import CPU, SIDE, WHOLE, tiny_config

LEVELS = (
    *WHOLE,
    *("input.resize=64", "model.decoder=levels", "classifier.freeze_backbone=true", "cam.method=cam"),
    *("cam.refine=joint", "localizer.seeds.weight=0", "localizer.soft.weight=1", "localizer.optimizer=adamw"),
    *("localizer.temporal.neighbours=0", "localizer.frame_choices=3", "classifier.frame_choices=3"),
    *("localizer.frame_limit=1", "classifier.frame_limit=1"),
)


@pytest.fixture
def network():
    return build_network(tiny_config(*LEVELS).model, 2, decoder=True, seed=0).eval()


def some_frames(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def places(keys):
    return [{"a": 0, "b": 2}[video] + index for video, index in keys]


def test_a_frame_is_read_and_computed_once(network):
    frames, asked = some_frames(3), []

    def read(keys):
        asked.append(keys)
        return frames[places(keys)]

    features, keys = FrozenFeatures(CPU, read), [("a", 0), ("a", 1), ("b", 0)]
    first = features(network, keys[:2])
    again = features(network, [keys[1], keys[2], keys[0]])
    assert asked == [keys[:2], [keys[2]]]
    assert torch.equal(again.last[[2, 0]], first.last)
    assert torch.equal(again.levels[1][[2, 0]], first.levels[1])


def test_the_tags_of_a_video_share_its_features(network):
    frames, asked = some_frames(3), []

    def read(keys):
        asked.append(keys)
        return frames[places(keys)]

    features = FrozenFeatures(CPU, read, same={"a": "a", "tag:a": "a"})
    found = features(network, [("tag:a", 1), ("b", 0), ("a", 1)]).last
    assert asked == [[("a", 1), ("b", 0)]]
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_maps_are_those_of_the_network_up_to_16_bits(network):
    frames = some_frames(2)
    pyramid = FrozenFeatures(CPU, lambda keys: frames[places(keys)])(network, [("a", 0), ("a", 1)])
    found = network.output(pyramid, (SIDE, SIDE))
    expected = network(frames)
    assert torch.allclose(found.map_logits, expected.map_logits, atol=0.01)
    assert torch.allclose(found.class_logits, expected.class_logits, atol=0.01)


def test_frames_beyond_the_memory_have_the_same_features(network, monkeypatch):
    frames, keys = some_frames(3), [("a", 0), ("a", 1), ("b", 0)]
    whole = FrozenFeatures(CPU, lambda keys: frames[places(keys)])(network, keys)
    one = sum(part[0].half().nbytes for part in (*whole.levels, whole.last))
    monkeypatch.setattr(frozen_features, "_MOST_BYTES", 2 * one)
    small = FrozenFeatures(CPU, lambda keys: frames[places(keys)])
    for _ in range(2):
        assert torch.allclose(small(network, keys).last, whole.last, atol=1e-3)  # batches of other sizes
    assert len(small.kept) == 2


def test_frames_are_read_of_any_video_in_any_order(tiny_data):
    records = tiny_data.index.records[:2]
    read = FrameReader({record.video_id: record for record in records}, OpenReaders((SIDE, SIDE)))
    one, other = (record.video_id for record in records)
    found = read([(one, 3), (one, 1), (other, 0), (one, 2)])
    whole = {record.video_id: OpenReaders((SIDE, SIDE)).read(record, range(4)) for record in records}
    assert torch.equal(found, torch.stack([whole[one][3], whole[one][1], whole[other][0], whole[one][2]]))


def test_clips_are_mirrored_with_their_maps_and_features():
    frames, cams = some_frames(8).view(4, 2, 3, SIDE, SIDE), torch.rand(4, 2, 5, 6)
    batch = ClipBatch(frames, cams, torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4), ("a", "b", "c", "d"))
    pyramid = Pyramid((torch.rand(8, 2, 4, 4),), torch.rand(8, 3, 2, 2))
    turned, features = mirror_some(batch, pyramid, torch.Generator().manual_seed(0))
    mirrored = [bool((turned.cams[i] == cams[i].flip(-1)).all()) for i in range(4)]
    assert sorted(set(mirrored)) == [False, True]
    for i, flipped in enumerate(mirrored):
        clip = slice(2 * i, 2 * i + 2)
        for before, after in ((frames[i], turned.frames[i]), (pyramid.last[clip], features.last[clip])):
            assert torch.equal(after, before.flip(-1) if flipped else before)


@pytest.mark.parametrize(
    ("setting", "kept"),
    [("seed=0", True), ("input.resize=72", False), ("model.decoder=unet", False), ("cam.method=scorecam", False)],
)
def test_features_are_kept_only_if_all_training_sees_whole_frames_and_features_alone(setting, kept):
    assert tiny_config(*LEVELS, setting).keeps_features == kept


@pytest.mark.slow
@pytest.mark.parametrize("space", ["colour", "features"])
def test_sequences_train_on_kept_features(train_beside, space):
    sequences = ("method=colocam", "localizer.sequence.frames=2", "localizer.frame_limit=1.0")
    settings = (*sequences, f"localizer.joint.space={space}", "localizer.epochs=2")
    folder = train_beside(space, *LEVELS, *settings, quiet=True)
    assert load_run(folder).config.keeps_features
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [row for row in rows if row["stage"] == "localizer"]
    assert [row["joint"] for row in found] == [-4.0, -4.0]
    assert found[1]["soft"] < found[0]["soft"]


@pytest.mark.slow
def test_rounds_train_one_after_the_other_and_a_run_that_was_cut_off_ends_alike(train_beside, tcam, tmp_path, tiny_run):
    folder = train_beside("rounds", *LEVELS, "localizer.rounds=2", "localizer.average_rounds=true", quiet=True)
    run = load_run(folder)
    stages = (run.cams_stage(1), run.localizer_stage(1), run.cams_stage(2), run.localizer_stage(2))
    assert [stage.folder.name for stage in stages] == ["cams", "localizer-1", "cams-2", "localizer"]
    assert all(stage.done for stage in stages)
    stored = sorted((folder / "cams-2").glob("*.npy"))
    assert len(stored) == len(list((folder / "cams").glob("*.npy"))) > 0
    found = folder / "localizer" / "best_localization.safetensors"
    mean, before = load_file(found), load_file(folder / "localizer-1" / found.name)
    own = load_file(found.parent / "last.safetensors")  # of its single epoch
    assert not torch.equal(own["decoder.layers.0.weight"], before["decoder.layers.0.weight"])
    for name, value in mean.items():
        assert torch.equal(value, ((own[name].double() + before[name].double()) / 2).to(value.dtype)), name
    first = found.read_bytes()
    (found.parent / "stage.json").unlink()  # as if it had ended right before its last line
    start_or_resume(None, resume=folder, quiet=True)
    assert found.read_bytes() == first
    for name in ("cams-2", "localizer"):
        shutil.rmtree(folder / name)
    start_or_resume(None, resume=folder, quiet=True)
    assert found.read_bytes() == first
    predicted = tcam("predict", folder, "--source", tiny_run.videos / "fish" / "fish-03.mp4", "-o", tmp_path / "b.csv")
    assert predicted.code == 0, predicted.err


def test_fewer_rounds_begin_like_more(tiny_data, tmp_path):
    runs = [
        Run(tmp_path, tiny_config(*LEVELS, f"localizer.rounds={rounds}"), CPU, tiny_data.index, tuple(tiny_data.truth))
        for rounds in (1, 3)
    ]
    assert runs[0].localizer_stage().fingerprint == runs[1].localizer_stage(1).fingerprint
    assert runs[1].localizer_stage().fingerprint != runs[1].localizer_stage(2).fingerprint


def test_the_mean_of_rounds_changes_all_but_the_first(tiny_data, tmp_path):
    runs = [
        Run(tmp_path, tiny_config(*LEVELS, "localizer.rounds=3", average), CPU, tiny_data.index, tuple(tiny_data.truth))
        for average in ("localizer.average_rounds=false", "localizer.average_rounds=true")
    ]
    same = [runs[0].localizer_stage(i).fingerprint == runs[1].localizer_stage(i).fingerprint for i in (1, 2, 3)]
    assert same == [True, False, False]
