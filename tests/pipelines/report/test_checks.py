import dataclasses
import math

import numpy as np
import pytest
import torch

from pipelines.inference.overlay import FOUND_COLOUR
from pipelines.report.checks import STEPS_PER_VIDEO, check_videos, first_of_pairs, neighbours, videos_in_turn
from tcam.boxes.boxes import iou
from tcam.boxes.extract import boxes_at_thresholds
from tcam.supervision.joint_walk import JointWalk
from tcam.types import NO_CLASS, VideoIndex
from tcam.video.dataset import OpenReaders
from tests.helpers.tiny import SIDE, record, tiny_localizer

SIZE = (SIDE, SIDE)


def test_pairs_of_frames_never_span_a_cut():
    video = record("a", 0, shots=((0, 3), (3, 4), (4, 6)))
    assert first_of_pairs(video, 9) == [0, 1, 4]
    assert first_of_pairs(video, 1) == [1]
    assert first_of_pairs(record("b", 0, shots=((0, 1), (1, 2))), 4) == []


def test_test_videos_come_first_and_tags_take_turns():
    records = (
        *(
            record(f"{split}{i}", label, split=split)
            for split in ("train", "val", "test")
            for i, label in enumerate((0, 0, 1))
        ),
        record("background", NO_CLASS, split="test"),
    )
    ordered = videos_in_turn(VideoIndex(("cat", "dog"), records))
    assert [item.video_id for item in ordered] == [
        f"{split}{i}" for split in ("test", "val", "train") for i in (0, 2, 1)
    ]


def test_neighbouring_thresholds_stay_between_0_and_1():
    assert neighbours(0.5) == pytest.approx((0.4, 0.6))
    assert neighbours(0.99) == pytest.approx((0.89, 0.995))
    assert neighbours(0.1) == pytest.approx((0.05, 0.2))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["layercam", "decoder"])
def test_numbers_are_means_over_the_frames_looked_at(tiny_data, method):
    localizer, index = tiny_localizer(method), tiny_data.index
    checks = check_videos("tcam", localizer, index, threshold=0.5, size=SIZE)
    assert (checks.method, checks.total, checks.classes, checks.left_out) == ("tcam", len(index.records), 2, [])
    assert {check.video for check in checks.videos} == {item.video_id for item in index.records}
    certainties = [check.certainty for check in checks.videos]
    assert certainties == sorted(certainties)
    for check in checks.videos:
        video = next(item for item in index.records if item.video_id == check.video)
        firsts = first_of_pairs(video, STEPS_PER_VIDEO)
        maps = {}
        for frame in {*firsts, *(i + 1 for i in firsts)}:
            found = localizer(OpenReaders(SIZE).read(video, [frame]), torch.tensor([video.label]))
            maps[frame] = boxes_at_thresholds(found.maps, [0.4, 0.5, 0.6])[0].nan_to_num(0.0), found.probabilities[0]
        steps = [float(iou(maps[i][0][1], maps[i + 1][0][1])) for i in firsts]
        assert check.over_time == pytest.approx(np.mean(steps), abs=0.02)
        assert check.over_thresholds == pytest.approx(
            np.mean([float(iou(b[0], b[2])) for b, _ in maps.values()]), abs=0.02
        )
        mean = torch.stack([own for _, own in maps.values()]).mean(0)
        assert check.tag_probability == pytest.approx(float(mean[video.label]), abs=1e-3)
        assert check.best == index.class_names[int(mean.argmax())]
        assert check.best_probability == pytest.approx(float(mean.max()), abs=1e-3)
        assert check.certainty == pytest.approx(check.tag_probability * check.over_thresholds)


def test_the_frame_has_its_proportions_and_its_box(tiny_data):
    video = dataclasses.replace(tiny_data.index.records[0], size=(60, 120))
    index = dataclasses.replace(tiny_data.index, records=(video,))
    (check,) = check_videos("tcam", tiny_localizer(), index, threshold=0.5, size=SIZE).videos
    assert check.picture.shape == (3, 120, 240)
    assert check.found
    assert (check.picture == np.array(FOUND_COLOUR, np.uint8)[:, None, None]).all(axis=0).any()


def test_a_video_that_cannot_be_read_is_named_and_left_out(tiny_data, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    first, *others = tiny_data.index.records
    broken = dataclasses.replace(first, path=str(tmp_path / "broken.mp4"), cache_path=None)
    index = dataclasses.replace(tiny_data.index, records=(broken, *others))
    checks = check_videos("tcam", tiny_localizer(), index, threshold=0.5, size=SIZE)
    assert checks.left_out == [first.video_id]
    assert len(checks.videos) == len(others)


def test_a_single_frame_has_no_step_and_a_walk_is_used(tiny_data):
    shots = (dataclasses.replace(tiny_data.index.records[0].shots[0], start=2, stop=3),)
    video = dataclasses.replace(tiny_data.index.records[0], shots=shots)
    index = dataclasses.replace(tiny_data.index, records=(video,))
    localizer = dataclasses.replace(tiny_localizer(), walk=JointWalk(steps=5))
    (plain,) = check_videos("a", tiny_localizer(), index, threshold=0.5, size=SIZE).videos
    (walked,) = check_videos("a", localizer, index, threshold=0.5, size=SIZE).videos
    assert plain.frame == walked.frame == 2
    assert math.isnan(plain.over_time)
    assert not np.array_equal(plain.picture, walked.picture)  # the box moved
