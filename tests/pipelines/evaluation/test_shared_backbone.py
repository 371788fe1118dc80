"""Localizers with one backbone, which frames pass once."""

import pytest
import torch

from pipelines.evaluation.shared_backbone import maps_of_all, share_backbones
from tests.helpers.tiny import SIDE, tiny_localizer


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def passes_of(backbone, seen):
    backbone.register_forward_hook(lambda *_: seen.append(backbone))


def test_equal_backbones_become_one_and_frames_pass_it_once(frames):
    alike = [tiny_localizer("layercam"), tiny_localizer("decoder")]
    labels = torch.tensor([0, 1, 0])
    alone = [localizer(frames, labels) for localizer in alike]
    assert share_backbones(alike) is alike
    assert alike[0].network.backbone is alike[1].network.backbone
    seen = []
    passes_of(alike[0].network.backbone, seen)
    for found, expected in zip(maps_of_all(alike, frames, labels), alone, strict=True):
        assert torch.equal(found.maps, expected.maps)
        assert torch.equal(found.probabilities, expected.probabilities)
        assert torch.equal(found.labels, expected.labels)
    assert len(seen) == 1


def test_a_backbone_that_went_on_learning_stays_its_own(frames):
    first, second = tiny_localizer("layercam"), tiny_localizer("decoder")
    with torch.no_grad():
        next(second.network.backbone.parameters()).add_(0.1)
    expected = second(frames).maps
    share_backbones([first, second])
    seen = []
    for localizer in (first, second):
        passes_of(localizer.network.backbone, seen)
    assert torch.equal(list(maps_of_all([first, second], frames, None))[1].maps, expected)
    assert seen == [first.network.backbone, second.network.backbone]
