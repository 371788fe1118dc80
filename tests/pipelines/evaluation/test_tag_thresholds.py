import numpy as np
import pytest
import torch

from pipelines.evaluation.sampling import threshold_grid
from pipelines.evaluation.tag_thresholds import (
    FRAMES_PER_VIDEO,
    _level_of,
    box_shares,
    choose_by_tags,
    region_probabilities,
)
from pipelines.models.localizer import build_network
from tcam.boxes.extract import boxes_at_thresholds
from tcam.supervision.joint_walk import JointWalk
from tcam.video.clips import spread_frames
from tcam.video.dataset import OpenReaders
from tests.helpers.tiny import SIDE, tiny_config, tiny_localizer

SIZE = (SIDE, SIDE)


def test_regions_are_judged_by_their_mean_features():
    network = build_network(tiny_config().model, 2, decoder=False, seed=0).eval()
    with torch.no_grad():
        network.head.linear.weight.zero_()
        network.head.linear.weight[1, 0], network.head.linear.bias[:] = 8.0, 0.0
    features = torch.zeros(1, network.backbone.last_channels, 20, 20)
    features[0, 0, 5:10, 10:20] = 1.0  # a quarter of the height, half of the width
    boxes = torch.tensor([[[0.5, 0.25, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0], [0.5, 0.25, 0.75, 0.5], [torch.nan] * 4]])
    inside, outside, whole = region_probabilities(network, features, boxes, torch.tensor([1]))
    sigmoid = torch.tensor([8.0, 8 / 8, 8.0]).sigmoid()
    assert inside[0, :3].tolist() == pytest.approx(sigmoid.tolist(), abs=1e-4)
    assert whole.tolist() == pytest.approx([sigmoid[1].item()], abs=1e-4)
    assert outside[0, 0].item() == pytest.approx(0.5)  # all of the object is inside
    assert outside[0, 2].item() == pytest.approx(torch.tensor(8 * 25 / 375).sigmoid().item(), abs=1e-4)
    assert inside[0, 3].item() == 0  # no box holds nothing


def test_the_level_of_a_share_lies_between_those_of_the_grid():
    shares = np.linspace(0.96, 0.02, 48)
    assert _level_of(shares, 0.5) == pytest.approx(0.48, abs=1e-6)
    assert _level_of(shares, 0.49) == pytest.approx(0.49, abs=1e-6)
    assert _level_of(shares, 2.0) == 0.02
    shares[20] = 1.0  # noise: a larger box at a higher threshold
    assert 0 < _level_of(shares, 0.5) < 1


def test_boxes_of_every_map_cover_the_same_share_and_no_box_is_read(tiny_data):
    localizers = {"layercam": tiny_localizer("layercam"), "tcam": tiny_localizer("decoder")}
    walk, grid = JointWalk(steps=5), threshold_grid(0.02)
    chosen = choose_by_tags(localizers, localizers["layercam"], tiny_data.index, walk=walk, size=SIZE, grid=grid)
    assert set(chosen.thresholds) == {"layercam", "tcam"}
    assert len(chosen.curve) == len(chosen.levels) == len(chosen.shares) == 48
    assert chosen.share == chosen.shares[int(np.argmax(chosen.curve))]
    videos = [record for record in tiny_data.index.records if record.split in ("train", "val")]
    assert chosen.videos == len(videos)
    for name, localizer in localizers.items():
        by_tag = {}
        for record in videos:
            frames = OpenReaders(SIZE).read(record, list(spread_frames(record.shots[0], FRAMES_PER_VIDEO)))
            maps = localizer(frames, torch.full((len(frames),), record.label)).maps
            boxes = boxes_at_thresholds(maps, [chosen.thresholds[name]])
            by_tag.setdefault(record.label, []).append(box_shares(boxes, SIZE)[0])
        share = np.mean([np.mean(values) for values in by_tag.values()])
        assert share == pytest.approx(chosen.share, abs=0.1)


def test_nothing_found_covers_nothing():
    boxes = torch.tensor([[[0.0, 0.0, 32.0, 64.0]], [[torch.nan] * 4]], dtype=torch.float64)
    assert box_shares(boxes, SIZE).tolist() == [0.25]
