import dataclasses

import pytest
import torch

from pipelines.models.localizer import NetworkLocalizer
from pipelines.training.validation import Validator, best_level
from tcam.boxes.over_time import presence_of
from tcam.types import FrameTruth, VideoIndex
from tests.helpers.tiny import SIDE, tiny_config, tiny_localizer, whole_frame_truth

SETTINGS = tiny_config().evaluation


def decided(localizer: NetworkLocalizer, label: int) -> NetworkLocalizer:
    """Let the network see one class everywhere."""
    with torch.no_grad():
        localizer.network.head.weight.zero_()
        bias = next(p for name, p in localizer.network.head.named_parameters() if name.endswith("bias"))
        bias.zero_()[label] = 1.0
    return localizer


def validator(index: VideoIndex, truth) -> Validator:
    return Validator(index, truth, settings=SETTINGS, size=(SIDE, SIDE))


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


def test_the_level_parts_what_is_there_from_what_is_not():
    assert best_level([0.9, 0.8, 0.7, 0.2], [0.1, 0.3, 0.6, 0.75]) == 0.7
    assert best_level([0.9, 0.8], [0.1]) == 0.8
    assert best_level([0.4, 0.9], []) == 0.4
    assert best_level([], [0.4]) is None


def test_presence_is_learnt_from_tags_alone(tiny_data):
    localizer = decided(tiny_localizer("decoder"), 1)
    with torch.no_grad():
        localizer.network.decoder.head.weight.zero_()  # maps of one value, the same in all frames
    ones = VideoIndex(tiny_data.index.class_names, tuple(r for r in tiny_data.index.records if r.label == 1))
    peak = float(localizer(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8), torch.tensor([1])).maps.max())
    right = float(torch.tensor([0.0, 1.0]).softmax(0)[1])
    assert validator(ones, ()).presence(localizer) == pytest.approx(presence_of(right, peak))
    # Where half of the tags are the less probable class, no level parts the classes: it is the lowest.
    assert validator(tiny_data.index, ()).presence(localizer) == pytest.approx(presence_of(1 - right, peak))


def test_videos_without_boxes_count_for_their_tags_and_never_as_empty(tiny_data):
    """Frames without a row are unannotated: no box is expected there, and they show the tag."""
    first, _ = tiny_data.index.of_split("val")
    boxed = [item for item in whole_frame_truth(tiny_data.index) if item.video_id == first.video_id]
    score, localizer = validator(tiny_data.index, boxed), decided(tiny_localizer("decoder"), first.label)
    with torch.no_grad():
        localizer.network.decoder.head.weight.zero_()  # boxes the whole frame, with one level of presence by class
    found = score(localizer)
    assert (found.corloc, found.accuracy) == (100.0, 50.0)  # of the first video's frames; of all
    assert score.presence(localizer) == validator(tiny_data.index, ()).presence(localizer)
    alone = VideoIndex(tiny_data.index.class_names, (first,))
    assert validator(alone, boxed).presence(localizer) > score.presence(localizer)  # the second video counts


def test_frames_known_to_be_empty_show_no_tag(tiny_data):
    first, second = tiny_data.index.of_split("val")
    empty = [FrameTruth(first.video_id, frame, first.label, ()) for frame in range(first.num_frames)]
    score = validator(tiny_data.index, empty)
    assert score(decided(tiny_localizer(), second.label)).accuracy == 100.0
    assert validator(tiny_data.index, empty[1:])(decided(tiny_localizer(), second.label)).accuracy < 100.0


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


def test_other_tags_of_a_video_are_right_and_present(tiny_data):
    """Both tags hold for every video: the classifier is right whatever it says, and nothing shows an absent tag."""
    records = tuple(dataclasses.replace(r, also=(1 - r.label,)) for r in tiny_data.index.records)
    score = validator(VideoIndex(tiny_data.index.class_names, records), ())
    assert score(decided(tiny_localizer(), 0)).accuracy == 100.0
    found = score.presence(decided(tiny_localizer("decoder"), 1))
    assert found <= torch.tensor([0.0, 1.0]).softmax(0)[0] + 1e-6  # the level lets the less probable tag pass
