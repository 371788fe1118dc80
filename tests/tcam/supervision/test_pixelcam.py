import math

import pytest
import torch
from torch.nn import functional

from tcam.supervision.objective import TcamObjective
from tcam.supervision.pixelcam import PixelCamObjective
from tcam.types import PixelLabels
from tests.helpers.clips import as_clips, random_case

BASE = TcamObjective(seed_weight=0.5, crf_weight=0.0, size_weight=0.0, sigma_rgb=15.0, sigma_xy=10.0)


def test_the_loss_is_the_image_classifiers_and_the_weighted_pixel_classifiers():
    logits, frames, labels = random_case()
    scores = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    batch = as_clips(logits, frames, tags=torch.tensor([1, 0]), class_logits=scores)
    losses = PixelCamObjective(BASE)(*batch, PixelLabels(labels), barrier_t=1.0)
    assert float(losses.terms["classes"]) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    pixels = functional.cross_entropy(logits.flatten(0, 1), labels.long())
    torch.testing.assert_close(losses.terms["seeds"], pixels)
    torch.testing.assert_close(losses.total, losses.terms["classes"] + 0.5 * pixels)
    assert losses.counts["classes"] == 2


def test_the_gradient_of_both_parts_is_right():
    logits, frames, labels = random_case(side=3, dtype=torch.float64)
    scores = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    tags = torch.tensor([1, 0])

    def total(maps, class_logits):
        # The seeds are float32 inside; the class term is checked here, the seeds' in test_losses.py.
        found = as_clips(maps, frames, tags=tags, class_logits=class_logits)
        return PixelCamObjective(BASE)(*found, PixelLabels(labels), barrier_t=1.0).terms["classes"]

    assert torch.autograd.gradcheck(lambda scores: total(logits.detach(), scores), (scores,))
