import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.localizer import Localizer
from pipelines.selection import Validator, spread_out, threshold_grid
from tcam.types import VideoIndex
from tests.pipelines.tiny import SIDE, tiny_config, tiny_localizer, whole_frame_truth

SETTINGS = tiny_config().evaluation


def decided(localizer: Localizer, label: int) -> Localizer:
    """Let the network see one class everywhere."""
    with torch.no_grad():
        localizer.network.head.weight.zero_()
        next(p for name, p in localizer.network.head.named_parameters() if name.endswith("bias"))[label] = 1.0
    return localizer


def validator(index: VideoIndex, truth) -> Validator:
    return Validator(index, truth, settings=SETTINGS, size=(SIDE, SIDE))


def test_the_grid_starts_at_0_and_ends_below_1():
    assert threshold_grid(0.5) == [0.0, 0.5]
    assert threshold_grid(0.3) == [0.0, 0.3, 0.6, 0.9]
    assert threshold_grid(0.01) == [i / 100 for i in range(100)]


@given(st.floats(0.001, 0.5))
def test_every_grid_ascends_and_reaches_1_within_a_step(step):
    grid = threshold_grid(step)
    assert grid[0] == 0
    assert grid == sorted(set(grid))
    assert grid[-1] < 1 <= grid[-1] + step + 1e-5


def test_positions_are_the_middles_of_equal_parts():
    assert spread_out(10, 2) == [2, 7]
    assert spread_out(9, 3) == [1, 4, 7]
    assert spread_out(3, 8) == [0, 1, 2]
    assert spread_out(0, 2) == []


@given(st.integers(0, 500), st.integers(1, 50))
def test_spread_positions_are_distinct_and_inside(count, wanted):
    positions = spread_out(count, wanted)
    assert len(positions) == min(count, wanted)
    assert positions == sorted(set(positions))
    assert all(0 <= position < count for position in positions)


def test_accuracy_is_the_share_of_frames_classified_right(tiny_data):
    score = validator(tiny_data.index, ())
    for label in (0, 1):
        found = score(decided(tiny_localizer(), label))
        assert found.accuracy == 50.0
        assert found.corloc is None


def test_corloc_is_that_of_the_best_threshold_on_annotated_frames(tiny_data):
    # A decoder that says "maybe" everywhere boxes the whole frame at threshold 0 and nothing at others.
    localizer = tiny_localizer("decoder")
    with torch.no_grad():
        localizer.network.decoder.head.weight.zero_()
    truth = whole_frame_truth(tiny_data.index)
    assert validator(tiny_data.index, truth)(localizer).corloc == 100.0
    tiny_boxes = tuple(
        type(item)(item.video_id, item.frame_index, item.label, (type(item.boxes[0])(0, 0, 8, 8),)) for item in truth
    )
    assert validator(tiny_data.index, tiny_boxes)(localizer).corloc == 0.0
    both = (*(t for t in truth if t.label == 0), *(t for t in tiny_boxes if t.label == 1))
    assert validator(tiny_data.index, both)(localizer).corloc == 50.0


def test_nearly_all_validation_frames_reach_the_level_of_presence(tiny_data):
    localizer, asked = tiny_localizer("decoder"), validator(tiny_data.index, ())
    level, levels = asked.presence(localizer), []
    for batch in asked._frames():
        result = localizer(batch.frames.flatten(0, 1))
        levels += torch.minimum(result.probabilities.amax(1), result.maps.flatten(1).amax(1)).tolist()
    lowest, next_to_it, *_ = sorted(levels)
    assert level == pytest.approx(lowest + 0.05 * (len(levels) - 1) * (next_to_it - lowest), abs=1e-6)


def test_without_validation_videos_there_is_no_score(tiny_data):
    index = VideoIndex(tiny_data.index.class_names, tiny_data.index.of_split("train"))
    found = validator(index, whole_frame_truth(index))(tiny_localizer())
    assert (found.corloc, found.accuracy) == (None, None)
    assert validator(index, ()).presence(tiny_localizer()) is None


def test_scoring_changes_no_weight_and_no_statistic(tiny_data):
    localizer = tiny_localizer()
    localizer.network.train()
    before = {name: tensor.clone() for name, tensor in localizer.network.state_dict().items()}
    validator(tiny_data.index, tiny_data.truth)(localizer)
    assert all(torch.equal(before[name], tensor) for name, tensor in localizer.network.state_dict().items())
