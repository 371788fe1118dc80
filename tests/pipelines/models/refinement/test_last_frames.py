"""Maps of a stream that agree with its last frames."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.models.engine import StreamEngine
from pipelines.models.refinement.last_frames import LastFramesEngine
from pipelines.models.run import REFINED
from pipelines.streaming.localizer import StreamLocalizer
from tcam.model.level_head import REDUCTION
from tcam.supervision.joint_walk import JointWalk, start_maps
from tests.helpers.tiny import SIDE, set_walk, tiny_localizer

WALK = JointWalk(window=3, stride=2, steps=5)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (9, 3, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def localizer():
    return replace(tiny_localizer("decoder"), walk=WALK)


def test_each_frame_walks_with_frames_a_stride_before_it(frames, localizer):
    found = LastFramesEngine(localizer).find(frames, 1)
    whole = localizer(torch.from_numpy(frames), torch.ones(9, dtype=torch.int64))
    side = whole.features.shape[2]
    starts = start_maps(whole.maps, (side, side))
    for frame, together in ((0, [0]), (3, [3, 2, 1]), (8, [8, 6, 4])):  # the first ones are a shot of few frames
        walked = WALK.together(starts[together], whole.features[together])[:1, None]
        expected = torch.nn.functional.interpolate(walked, (SIDE, SIDE), mode="bilinear")[0, 0]
        assert np.allclose(found.maps[frame], expected.numpy(), atol=1e-5), frame
    assert found.labels.tolist() == [1] * 9


def test_batches_pickles_and_forks_change_nothing_and_another_stream_starts_anew(frames, localizer):
    whole = LastFramesEngine(localizer).find(frames, None).maps
    engine = LastFramesEngine(localizer)
    assert isinstance(engine, StreamEngine)
    assert not isinstance(localizer, StreamEngine)
    parts = [engine.find(frames[:4], None).maps]
    engine = pickle.loads(pickle.dumps(engine.pack())).unpack()
    parts.append(engine.find(frames[4:5], None).maps)
    parts.append(engine.after_fork().find(frames[5:], None).maps)
    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)
    assert np.allclose(engine.new_stream().find(frames[:4], None).maps, whole[:4], atol=1e-5)


def test_memory_is_that_of_one_block(frames, localizer):
    engine = LastFramesEngine(localizer)
    for _ in range(3):
        engine.find(frames, None)
    held = engine.pack().held
    assert len(held) == WALK.window * WALK.stride
    assert sum(start.numel() for start, _ in held) <= len(held) * (SIDE // REDUCTION + 1) ** 2


def test_a_localizer_without_a_walk_is_refused():
    with pytest.raises(ValueError, match="expected a localizer with a walk"):
        LastFramesEngine(tiny_localizer("decoder"))


@pytest.mark.slow
def test_a_stream_takes_the_threshold_for_walked_maps_and_two_streams_do_not_mix(tcam, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "tiny-001")
    set_walk(run, window=2, stride=1)
    one = StreamLocalizer.of_run(run, refine="joint", device="cpu")
    stored = run / REFINED["joint"]
    facts = json.loads(stored.read_text())
    facts["thresholds"] = dict.fromkeys(facts["thresholds"], 0.123)
    stored.write_text(json.dumps(facts))
    assert StreamLocalizer.of_run(run, refine="joint", device="cpu").threshold == 0.123
    assert StreamLocalizer.of_run(run, device="cpu").threshold != 0.123
    pictures = np.random.default_rng(1).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    first = [one.step(picture) for picture in pictures]
    other = one.new_stream()
    assert [other.step(picture) for picture in pictures] == first
    out = tmp_path / "boxes.jsonl"
    source = tiny_run.videos / "fish" / "fish-00.mp4"
    assert tcam("stream", run, "--source", source, "-o", out, "--refine", "joint", "-q").code == 0
    assert tcam("stream", run, "--source", source, "--refine", "joint", "--compile", "-q").code == 2
