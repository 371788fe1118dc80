import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from pipelines.inference.walked import WalkedPredictor
from pipelines.models.engine import MOST_ON_CPU
from pipelines.models.open import open_model
from pipelines.models.refinement.refined import refined_localizers
from pipelines.models.refinement.walked import walked_frames, walked_maps
from tcam.errors import ConfigError
from tcam.supervision.joint_walk import JointWalk, affinity_features
from tcam.types import VideoRecord
from tcam.video.reader import DecodedFrame, stream_frames
from tests.helpers.encoded import encode
from tests.helpers.tiny import CPU, SIDE, record, tiny_config, tiny_localizer

FRAMES, NAMES, SIZE = 43, ("beetle", "fish"), (SIDE, SIDE)
WALK = JointWalk(window=3, stride=2, steps=5)


def localizer(method: str = "layercam", walk: JointWalk = WALK):
    return dataclasses.replace(tiny_localizer(method), walk=walk)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> VideoRecord:
    path = encode(tmp_path_factory.mktemp("walked") / "long.mp4", frames=FRAMES, size=(64, 96))
    item = record("fish/long.mp4", 1, shots=((0, FRAMES),))
    return dataclasses.replace(item, path=str(path), size=(64, 96))


def boxes(video: VideoRecord, part, *, batch: int, method: str = "layercam", size: int = FRAMES):
    """Rows of the frames of a part, read as ``predict`` reads them; None: all, of unknown number."""
    predictor = WalkedPredictor.of_engine(localizer(method), batch)
    work = predictor.rest(0) if part is None else predictor.part(part, num_frames=size)
    frames = (frame for frame in stream_frames(Path(video.path), size=SIZE) if frame.index in work.read)
    return list(predictor.predict(video.video_id, frames, work, threshold=0.5, class_names=NAMES, label=1))


@pytest.mark.parametrize("method", ["layercam", "decoder"])
def test_maps_are_those_of_a_walk_over_the_whole_video_at_the_size_of_the_input(video, method):
    found = localizer(method)
    frames = torch.stack([torch.from_numpy(frame.pixels) for frame in stream_frames(Path(video.path), size=SIZE)])
    with torch.no_grad():
        features = affinity_features(found.network.pyramid(frames).levels, SIZE)
        plain = dataclasses.replace(found, walk=None)(frames, torch.full((FRAMES,), 1))
    assert plain.features is None
    expected = functional.interpolate(WALK(plain.maps, features)[:, None], SIZE, mode="bilinear")[:, 0]
    walked = list(walked_frames(found, video, range(FRAMES), batch=8, size=SIZE))
    torch.testing.assert_close(torch.cat([item.maps for item in walked]), expected, atol=1e-3, rtol=0)
    probabilities = torch.cat([item.probabilities for item in walked])
    torch.testing.assert_close(probabilities, plain.probabilities, atol=1e-4, rtol=0)
    assert (expected - plain.maps).abs().mean() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("batch", [2, 5, 8])
def test_rows_are_the_same_in_any_parts_and_where_the_end_is_unknown(video, batch):
    whole = boxes(video, None, batch=batch)
    assert [row.box.frame_index for row in whole] == list(range(FRAMES))
    assert len({row.box.box for row in whole}) > 1
    for length in (FRAMES, 16, 10, 1):
        cut = [range(first, min(first + length, FRAMES)) for first in range(0, FRAMES, length)]
        rows = [row for part in cut for row in boxes(video, part, batch=batch)]
        assert [row.box for row in rows] == [row.box for row in whole]


@pytest.mark.slow
def test_the_rest_of_a_video_has_the_rows_of_the_whole(video):
    predictor = WalkedPredictor.of_engine(localizer(), 4)
    whole = boxes(video, None, batch=4)
    for first in (1, 5, 6, 20, FRAMES - 1):
        work = predictor.rest(first)
        frames = stream_frames(Path(video.path), size=SIZE)
        rows = list(predictor.predict(video.video_id, frames, work, threshold=0.5, class_names=NAMES, label=1))
        assert [row.box for row in rows] == [row.box for row in whole[first:]]
        assert work.read.start >= first - 3 * WALK.window * WALK.stride


@pytest.mark.slow
def test_the_batch_changes_no_box(video):
    rows = [boxes(video, None, batch=batch) for batch in (1, 3, MOST_ON_CPU, 100)]
    assert all([row.box.box for row in other] == [row.box.box for row in rows[0]] for other in rows)


@pytest.mark.parametrize("wanted", [[0], [FRAMES - 1], [3, 4, 30], [0, 13, 26, 39]])
def test_some_frames_have_the_maps_they_have_in_the_whole_video(video, wanted):
    whole = list(walked_frames(localizer(), video, range(FRAMES), batch=4, size=SIZE))
    found = list(walked_frames(localizer(), video, wanted, batch=4, size=SIZE))
    assert len(found) == len(wanted)
    for index, item in zip(wanted, found, strict=True):
        assert torch.equal(item.maps, whole[index].maps)
        assert torch.equal(item.probabilities, whole[index].probabilities)


def test_only_frames_near_those_wanted_are_looked_at(video, monkeypatch):
    taken = []
    found = localizer()
    monkeypatch.setattr(type(found), "__call__", lambda self, frames, labels: taken.append(len(frames)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(walked_frames(found, video, [FRAMES - 1], batch=4, size=SIZE))
    assert taken == [4]


@pytest.mark.parametrize("frames", [1, 2])
def test_a_video_of_one_or_two_frames_has_its_maps(tmp_path, frames):
    path = encode(tmp_path / "one.mp4", frames=frames, size=(64, 96))
    item = dataclasses.replace(record("fish/one.mp4", 1, shots=((0, frames),)), path=str(path), size=(64, 96))
    rows = boxes(item, range(frames), batch=8, size=frames)
    assert [row.box.frame_index for row in rows] == list(range(frames))
    assert [row.box for row in rows] == [row.box for row in boxes(item, None, batch=8)]
    assert len(list(walked_frames(localizer(), item, range(frames), batch=8, size=SIZE))) == frames


def test_no_more_frames_are_held_than_a_block_and_a_batch():
    taken, batch = 0, 4

    def frames():
        nonlocal taken
        for index in range(100):
            taken = index + 1
            yield DecodedFrame(index, index / 25, torch.zeros(3, SIDE, SIDE, dtype=torch.uint8).numpy(), None, SIZE)

    found = walked_maps(localizer(), frames(), within=range(100), batch=batch, label=0)
    behind = [taken - frame.index for frame, _ in found]
    assert len(behind) == 100
    assert max(behind) <= WALK.window * WALK.stride + batch


def test_without_a_walk_nothing_agrees(video):
    with pytest.raises(ValueError, match="expected a localizer with a walk"):
        next(walked_maps(tiny_localizer(), iter(()), within=range(1), batch=1, label=None))
    with pytest.raises(ValueError, match="expected a network with a walk"):
        WalkedPredictor.of_engine(tiny_localizer(), 8)


def test_a_walk_survives_the_journey_to_a_worker():
    assert localizer().pack().unpack().walk == WALK


def test_refined_localizers_have_the_name_and_the_walk_of_the_settings():
    settings = tiny_config("cam.walk.window=5", "cam.walk.stride=1").cam.walk
    assert refined_localizers({"cam": tiny_localizer()}, {"cam": 0.5}, "none", settings) == {}
    refined = refined_localizers({"cam": tiny_localizer()}, {"cam": 0.5}, "joint", settings)
    assert list(refined) == ["cam + joint"]
    assert refined["cam + joint"].walk == JointWalk(window=5, stride=1)
    assert refined["cam + joint"].compute == CPU


@pytest.mark.parametrize("refine", ["crf", "joint"])
def test_an_exported_file_cannot_be_refined(tmp_path, refine):
    with pytest.raises(ConfigError, match=f"--refine {refine} is for a run, got the exported file"):
        open_model(tmp_path / "pets.onnx", refine=refine)
