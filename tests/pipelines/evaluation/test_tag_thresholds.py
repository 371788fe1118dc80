"""Thresholds without a box: by the agreement of the boxes of two maps."""

import numpy as np
import pytest
import torch

from pipelines.evaluation.sampling import threshold_grid
from pipelines.evaluation.tag_thresholds import _LEVELS, choose_by_tags, measure_agreement
from pipelines.models.localizer import NetworkLocalizer, build_network
from pipelines.training.frozen_features import FrameReader, FrozenFeatures
from tcam.boxes.extract import boxes_at_thresholds
from tcam.supervision.joint_walk import JointWalk
from tcam.video.dataset import OpenReaders
from tests.helpers.tiny import CPU, SIDE, tiny_config, tiny_localizer

SIZE = (100, 100)


def boxes_of_blobs(size, videos, seed):
    """Return the boxes of maps over an object, for videos of 4 frames: ``[4, L, 4]`` each.

    At level 0.5 the box is the object. Above it, it shrinks to a peak somewhere in the object, and below it grows into
    the background: where to depends on the seed of the map.
    """
    of_map, of_object = np.random.default_rng(seed), np.random.default_rng(0)
    found = []
    for _ in range(videos):
        corners = of_object.uniform(0, 100 - size, (4, 2))
        peaks, drifts = of_map.uniform(0, 1, (2, 4, 2))
        boxes = np.empty((4, len(_LEVELS), 4))
        for place, level in enumerate(_LEVELS):
            side = size * min((1 - level) / 0.5, 1)
            grown = (100 - size) * max(0.5 - level, 0) / 0.5
            start = corners + peaks * (size - side) - drifts * grown
            boxes[:, place] = np.concatenate([start, start + side + grown], axis=1)
        found.append(boxes.clip(0, 100))
    return found


@pytest.mark.parametrize(("size", "low", "high"), [(60, 0.3, 0.45), (30, 0.05, 0.15)])
def test_boxes_are_about_as_large_as_the_objects(size, low, high):
    first, second = boxes_of_blobs(size, 30, 1), boxes_of_blobs(size, 30, 2)
    found = measure_agreement(list(zip(first, second, strict=True)), SIZE, threshold_grid(0.004))
    assert low <= found.share <= high
    assert len(found.shares) == len(found.same) == len(found.chance)
    best = int(np.argmax(np.subtract(found.same, found.chance)))
    assert found.share == found.shares[best]


def test_the_threshold_gives_the_first_map_boxes_of_that_share():
    boxes = boxes_of_blobs(50, 12, 1)
    found = measure_agreement([(b, b) for b in boxes], SIZE, threshold_grid(0.02))
    column = int(np.argmin(np.abs(np.array(_LEVELS) - found.threshold)))
    at = np.concatenate([b[:, column] for b in boxes])
    share = np.mean((at[:, 2] - at[:, 0]) * (at[:, 3] - at[:, 1])) / 10000
    assert share == pytest.approx(found.share, abs=0.05)


def test_frames_without_a_box_and_a_single_video_are_defined():
    boxes = boxes_of_blobs(50, 1, 1)[0]
    boxes[1] = np.nan
    found = measure_agreement([(boxes, boxes)], SIZE, threshold_grid(0.1))
    assert 0 <= found.threshold < 1
    assert np.isfinite(found.same).all()
    assert found.chance == (0.0,) * len(found.shares)
    nothing = np.full((2, len(_LEVELS), 4), np.nan)
    assert np.isfinite(measure_agreement([(nothing, nothing)], SIZE, threshold_grid(0.1)).threshold)


def test_each_map_of_a_run_gets_a_threshold_whatever_the_order_and_no_box_is_read(tiny_data):
    localizers = {"layercam": tiny_localizer("layercam"), "tcam": tiny_localizer("decoder")}
    walk, grid, size = JointWalk(steps=5), threshold_grid(0.02), (SIDE, SIDE)
    chosen = choose_by_tags(localizers, tiny_data.index, walk=walk, size=size, grid=grid)
    assert chosen.videos == sum(record.split in ("train", "val") for record in tiny_data.index.records)
    assert set(chosen.thresholds) == {"layercam", "tcam"}
    assert set(chosen.thresholds.values()) <= set(grid)
    alone = choose_by_tags({"tcam": localizers["tcam"]}, tiny_data.index, walk=walk, size=size, grid=grid)
    assert alone.by_localizer["tcam"] == chosen.by_localizer["tcam"]


def test_levels_are_those_of_box_extraction():
    ramp = torch.linspace(1, 0, 100).expand(100, 100)[None]  # brightest at the left
    boxes = boxes_at_thresholds(ramp, _LEVELS).numpy()
    found = measure_agreement([(boxes, boxes)], SIZE, threshold_grid(0.02))
    assert found.threshold == pytest.approx(1 - found.share, abs=0.03)


def test_kept_features_give_the_same_thresholds_and_every_frame_is_looked_at_once(tiny_data):
    settings = tiny_config("model.decoder=levels").model
    networks = [build_network(settings, 2, decoder=decoder, seed=0).eval() for decoder in (False, True)]
    networks[1].backbone.load_state_dict(networks[0].backbone.state_dict())
    localizers = {
        "cam": NetworkLocalizer(networks[0], "cam", CPU),
        "tcam": NetworkLocalizer(networks[1], "decoder", CPU),
    }
    records, asked = {record.video_id: record for record in tiny_data.index.records}, []
    reader = FrameReader(records, OpenReaders((SIDE, SIDE)))
    features = FrozenFeatures(CPU, lambda keys: asked.extend(keys) or reader(keys))
    walk, grid, size = JointWalk(steps=5), threshold_grid(0.02), (SIDE, SIDE)
    kept = choose_by_tags(localizers, tiny_data.index, walk=walk, size=size, grid=grid, look=features)
    plain = choose_by_tags(localizers, tiny_data.index, walk=walk, size=size, grid=grid)
    assert len(asked) == len(features.kept)
    for name, threshold in plain.thresholds.items():
        assert kept.thresholds[name] == pytest.approx(threshold, abs=0.06)  # features are rounded to 16 bits


def test_maps_that_say_nothing_give_a_guess():
    first, second = boxes_of_blobs(50, 12, 1), boxes_of_blobs(50, 12, 2)
    assert not measure_agreement(list(zip(first, second, strict=True)), SIZE, threshold_grid(0.02)).is_guess
    alike = [first[0]] * 12  # every video has the same boxes, as of maps that show the background
    nothing = np.full_like(first[0], np.nan)
    for maps in ([(boxes, boxes) for boxes in alike], [(nothing, nothing)] * 12):
        assert measure_agreement(maps, SIZE, threshold_grid(0.02)).is_guess
