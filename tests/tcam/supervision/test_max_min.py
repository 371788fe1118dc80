import math
from dataclasses import replace

import pytest
import torch

from tcam.supervision.max_min import MaxMinObjective, certainty
from tcam.supervision.objective import TcamObjective
from tcam.types import PixelLabels
from tests.helpers.clips import as_clips, random_case

BASE = TcamObjective(seed_weight=0.0, crf_weight=0.0, size_weight=0.1, sigma_rgb=15.0, sigma_xy=10.0)


def score_left(frames, masks):
    """Say how bright what is shown of the left and of the right half is: classes 0 and 1."""
    shown = (frames[:, 0] / 255).to(masks.dtype) * masks
    half = shown.shape[2] // 2
    return torch.stack([shown[:, :, :half].mean(dim=(1, 2)), shown[:, :, half:].mean(dim=(1, 2))], dim=1)


def test_certainty_by_hand():
    assert float(certainty(torch.zeros(1, 4))) == pytest.approx(0.0, abs=1e-6)
    assert float(certainty(torch.tensor([[0.0, 1000.0]]))) == pytest.approx(math.log(2))
    p = torch.tensor([0.75, 0.25])
    expected = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert float(certainty(torch.stack([p.log(), p.log() + 5]))) == pytest.approx(expected)
    assert float(certainty(torch.zeros(0, 3))) == 0
    with pytest.raises(ValueError, match=r"must be \[N, K\], got \[3\]"):
        certainty(torch.zeros(3))


def test_its_gradient_is_right_and_vanishes_where_nothing_is_known():
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(certainty, (logits,))
    flat = torch.zeros(2, 4, requires_grad=True)
    certainty(flat).backward()
    assert flat.grad.abs().max() < 1e-7


def left_object():
    """A frame, bright in its left half, and maps that mark that half, all, or the right one."""
    frames = torch.zeros(1, 1, 3, 4, 4, dtype=torch.uint8)
    frames[..., :2] = 255
    marks = torch.zeros(4, 4)
    marks[:, :2] = 1
    return frames, {"left": marks, "all": torch.ones(4, 4), "right": 1 - marks}


def test_the_terms_by_hand():
    frames, marks = left_object()
    objective = MaxMinObjective(BASE, score_left, 2.0, 3.0)

    def terms(name):
        logits = 100 * torch.stack([-marks[name], marks[name] - 1])[None, None]  # S^1 = the mark
        found = objective(*as_clips(logits, frames), PixelLabels(torch.zeros(1, 4, 4)), barrier_t=1.0)
        assert found.weights == {"size": 0.1, "foreground": 2.0, "background": 3.0}
        return float(found.terms["foreground"]), float(found.terms["background"])

    sure = math.log(1 + math.exp(-1))  # logits 1 and 0
    p = 1 / (1 + math.exp(-1))
    known = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    assert terms("left") == pytest.approx((sure, 0.0), abs=1e-6)
    assert terms("all") == pytest.approx((sure, 0.0), abs=1e-6)
    assert terms("right") == pytest.approx((math.log(2), known), abs=1e-6)


def test_the_gradient_reaches_the_maps_and_is_right():
    logits, frames, labels = random_case(side=4, dtype=torch.float64)
    tags = torch.tensor([0, 1])
    objective = MaxMinObjective(replace(BASE, size_weight=0.0), score_left, 1.0, 1.0)
    assert torch.autograd.gradcheck(
        lambda maps: objective(*as_clips(maps, frames, tags=tags), PixelLabels(labels), barrier_t=1.0).total, (logits,)
    )


@pytest.mark.parametrize(("weights", "left_out"), [((0.0, 1.0), "foreground"), ((1.0, 0.0), "background")])
def test_a_term_of_weight_0_is_left_out(weights, left_out):
    logits, frames, labels = random_case()
    losses = MaxMinObjective(BASE, score_left, *weights)(*as_clips(logits, frames), PixelLabels(labels), barrier_t=1.0)
    assert set(losses.terms) == {"size", "foreground", "background"} - {left_out}
