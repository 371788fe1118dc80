import dataclasses
import json
import math
import weakref

import numpy as np
import pytest
import torch

from pipelines.config.localizer_groups import TemporalSettings
from pipelines.models.localizer import class_activation
from pipelines.parallel.placement import Placement
from pipelines.training.cam_cache import CamCache, shot_file, write_cams
from pipelines.training.frozen_features import FrameKey, FrozenFeatures
from tcam.errors import DataError
from tcam.supervision.joint_walk import JointWalk, affinity_features
from tcam.types import NO_CLASS, VideoIndex
from tcam.video.dataset import open_record
from tests.helpers.tiny import CPU, SIDE, record, tiny_config, tiny_localizer

SETTINGS = tiny_config("cam.batch=3").cam  # 8 frames in 3 batches


@pytest.fixture(scope="module")
def cams(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cams")
    write_cams(tiny_data.index, tiny_localizer(), folder, settings=SETTINGS, size=(SIDE, SIDE), placement=Placement())
    return folder


def write_by_hand(folder, index, arrays) -> None:
    for (position, shot), values in arrays.items():
        maps = np.array(values, dtype=np.float16).reshape(-1, 1, 2)
        np.save(shot_file(folder, position, index.records[position].shots[shot]), maps)


@pytest.fixture
def by_hand(tmp_path):
    """Two shots of frames of 1 x 2: 0..2 and 3..4."""
    index = VideoIndex(("a", "b"), (record("a/x.mp4", 0, shots=((0, 3), (3, 5))),))
    write_by_hand(tmp_path, index, {(0, 0): [0, 0.5, 0.25, 0.25, 1, 0], (0, 1): [0.75, 0, 0, 0.125]})
    return tmp_path, index


def read(by_hand, shot: int, frames: list[int], **temporal) -> list[list[float]]:
    folder, index = by_hand
    cache = CamCache.open(folder, index, TemporalSettings(**temporal))
    return cache(index.records[0], index.records[0].shots[shot], frames)[:, 0].tolist()


def test_every_training_shot_has_its_cams_and_no_other(cams, tiny_data):
    expected = {
        f"{position:06d}-0000000.npy" for position, item in enumerate(tiny_data.index.records) if item.split == "train"
    }
    assert len(expected) == 4
    assert {path.name for path in cams.iterdir()} == {*expected, "header.json"}
    for name in expected:
        maps = np.load(cams / name)
        assert maps.shape == (8, 8, 8)
        assert maps.dtype == np.float16
        assert maps.min() >= 0
        assert maps.max() <= 1
    header = json.loads((cams / "header.json").read_text())
    assert header == {"method": "layercam", "refine": "none", "input": [SIDE, SIDE], "classes": ["beetle", "fish"]}


def test_a_cam_is_of_the_videos_own_tag(cams, tiny_data):
    localizer = tiny_localizer()
    for position, item in enumerate(tiny_data.index.records):
        if item.split != "train":
            continue
        with open_record(item, (SIDE, SIDE)) as reader:
            frames = torch.from_numpy(reader.read([4]))
        with torch.no_grad():
            output = localizer.network(frames)
            own, other = (
                class_activation(localizer, frames, output=output, labels=torch.tensor([label]))
                for label in (item.label, 1 - item.label)
            )
        stored = torch.from_numpy(np.load(shot_file(cams, position, item.shots[0]))[4]).float()
        torch.testing.assert_close(stored, own[0], rtol=0, atol=2e-3)
        assert (stored - other[0]).abs().max() > 0.01


def test_refined_cams_are_those_of_a_walk_over_the_whole_shot(tiny_data, tmp_path):
    settings = tiny_config("cam.batch=2", "cam.refine=joint", "cam.walk.window=4", "cam.walk.steps=3").cam
    localizer, size = tiny_localizer(), (SIDE, SIDE)
    write_cams(tiny_data.index, localizer, tmp_path, settings=settings, size=size, placement=Placement())
    assert json.loads((tmp_path / "header.json").read_text())["refine"] == "joint"
    position, item = next((i, item) for i, item in enumerate(tiny_data.index.records) if item.split == "train")
    with open_record(item, size) as reader:
        frames = torch.from_numpy(reader.read(range(8)))
    with torch.no_grad():
        pyramid, output = localizer.network.pyramid(frames), localizer.network(frames)
        plain = class_activation(localizer, frames, output=output, labels=torch.full((8,), item.label))
    expected = JointWalk(window=4, steps=3)(plain, affinity_features(pyramid.levels, size))
    stored = torch.from_numpy(np.load(shot_file(tmp_path, position, item.shots[0]))).float()
    torch.testing.assert_close(stored, expected, rtol=0, atol=2e-3)
    assert stored.shape != plain.shape  # at the resolution of the features


def test_shots_that_are_there_are_kept(cams, tiny_data, tmp_path):
    first = next(i for i, item in enumerate(tiny_data.index.records) if item.split == "train")
    kept = shot_file(tmp_path, first, tiny_data.index.records[first].shots[0])
    np.save(kept, np.zeros((8, 8, 8), np.float16))
    write_cams(tiny_data.index, tiny_localizer(), tmp_path, settings=SETTINGS, size=(SIDE, SIDE), placement=Placement())
    assert not np.load(kept).any()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in cams.iterdir()}


def test_without_neighbours_a_frame_has_its_own_cam(by_hand):
    assert read(by_hand, 0, [2, 0], neighbours=0) == [[1, 0], [0, 0.5]]
    assert read(by_hand, 1, [3, 4], neighbours=0) == [[0.75, 0], [0, 0.125]]


def test_a_frame_is_pooled_with_its_neighbours_inside_the_shot(by_hand):
    assert read(by_hand, 0, [0, 1, 2], neighbours=1) == [[0, 0.5], [0.25, 0.5], [1, 0.25]]
    assert read(by_hand, 1, [3, 4], neighbours=1) == [[0.75, 0], [0.75, 0.125]]
    assert read(by_hand, 0, [0, 1, 2], neighbours=1, mode="after") == [[0.25, 0.5], [1, 0.25], [1, 0]]
    assert read(by_hand, 0, [0, 2], neighbours=5, mode="before-after") == [[1, 0.5], [1, 0.5]]


def test_cams_are_overheated_before_they_are_pooled(by_hand):
    (low, high), (last, cold) = read(by_hand, 0, [0, 2], neighbours=1, heat=2.0)
    assert (low, high) == (pytest.approx(math.exp(2 * (0 - 0.5))), 1)
    assert (last, cold) == (1, 1)  # frame 1 has equal values: all its pixels are its maximum


def test_cams_that_cannot_be_read_are_said_plainly(by_hand):
    folder, index = by_hand
    path = shot_file(folder, 0, index.records[0].shots[0])
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:-2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"CAM cache of a/x\.mp4 is unreadable .*; delete"):
            read(by_hand, 0, [0])
    path.unlink()
    with pytest.raises(DataError, match=r"CAM cache of a/x\.mp4 is unreadable"):
        read(by_hand, 0, [0])


def test_a_shot_without_any_object_has_cams_of_zero_though_the_cache_knows_the_video(by_hand):
    folder, index = by_hand
    empty = dataclasses.replace(index.records[0], label=NO_CLASS)
    cache = CamCache.open(folder, index, TemporalSettings())
    assert cache(empty, empty.shots[0], [0, 2]).tolist() == [[[0.0]], [[0.0]]]


def test_a_class_whose_cams_are_all_empty_is_named(tiny_data, tmp_path, capsys):
    localizer = tiny_localizer()
    with torch.no_grad():
        localizer.network.head.weight[1] = -1.0  # features are positive, so LayerCAM finds nothing for the second class
    write_cams(tiny_data.index, localizer, tmp_path, settings=SETTINGS, size=(SIDE, SIDE), placement=Placement())
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: every CAM of fish is empty, so the localizer learns that these videos hold no object" in said
    next(path for path in tmp_path.glob("*.npy") if np.load(path).any()).unlink()
    write_cams(tiny_data.index, localizer, tmp_path, settings=SETTINGS, size=(SIDE, SIDE), placement=Placement())
    assert "warning" not in capsys.readouterr().err  # of shots that were there before, nothing is known


class LongShot(dict[FrameKey, tuple[torch.Tensor, ...]]):
    """Features of any frame, made when asked for; counts those asked for and those alive."""

    def __init__(self, network) -> None:
        channels = (*network.backbone.level_channels[:2], network.backbone.last_channels)
        self.shapes, self.asked, self.alive, self.most = [(c, 2, 2) for c in channels], 0, 0, 0

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: FrameKey) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(key[1])
        parts = tuple(torch.rand(shape, generator=generator).half() for shape in self.shapes)
        self.asked, self.alive = self.asked + 1, self.alive + 1
        self.most = max(self.most, self.alive)
        weakref.finalize(parts[0], self._let_go)
        return parts

    def _let_go(self) -> None:
        self.alive -= 1


def read_nothing(keys):
    raise AssertionError(f"no frame is decoded, but {keys}")


def test_frames_of_a_long_shot_are_held_in_parts_and_few_chosen_ones_are_all_that_is_read(tmp_path):
    """A shot of two hours has 180,000 frames: here 2,000 that walk, and all with frame_choices."""
    localizer = tiny_localizer("cam")
    settings = tiny_config("cam.refine=joint", "cam.walk.steps=1").cam
    for frames, choices, cached in ((2000, None, 2000), (180_000, 8, 8)):
        index = VideoIndex(("a", "b"), (record("a/long.mp4", 0, shots=((0, frames),)),))
        shot = LongShot(localizer.network)
        write_cams(
            index,
            localizer,
            tmp_path / str(frames),
            settings=settings,
            size=(SIDE, SIDE),
            placement=Placement(),
            frames_per_shot=choices,
            features=FrozenFeatures(CPU, read_nothing, shot),
        )
        stored = np.load(shot_file(tmp_path / str(frames), 0, index.records[0].shots[0]), mmap_mode="r")
        assert stored.shape == (cached, 2, 2)
        assert shot.asked <= 2 * cached  # of neighbouring parts twice
        assert shot.most <= settings.batch
