import math
from dataclasses import replace

import pytest
import torch

from tcam.supervision.negev import NegevObjective, negative_evidence
from tcam.supervision.objective import TcamObjective
from tcam.types import IGNORE, NO_CLASS, PixelLabels
from tests.helpers.clips import as_clips, random_case

BASE = TcamObjective(seed_weight=1.0, crf_weight=2e-9, size_weight=0.01, sigma_rgb=15.0, sigma_xy=10.0)


def test_the_evidence_is_the_mean_cross_entropy_of_background():
    logits = torch.tensor([[[[0.0, math.log(3)]], [[0.0, 0.0]]]])  # S^0 = 1/2 and 3/4
    assert float(negative_evidence(logits)) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_its_gradient_is_right_and_stays_finite_where_a_map_is_certain():
    logits = random_case(dtype=torch.float64)[0].detach().flatten(0, 1)[:, :, :3, :3].requires_grad_()
    assert torch.autograd.gradcheck(negative_evidence, (logits,))
    sure = torch.tensor([[[[-300.0]], [[300.0]]]], requires_grad=True)
    negative_evidence(sure).backward()
    assert float(negative_evidence(sure.detach())) == 600
    assert sure.grad.flatten().tolist() == [-1, 1]


def test_no_frame_gives_no_evidence_and_other_shapes_are_refused():
    nothing = torch.zeros(0, 2, 4, 4, requires_grad=True)
    negative_evidence(nothing).backward()
    assert float(negative_evidence(nothing.detach())) == 0
    with pytest.raises(ValueError, match=r"\[N, 2, H, W\], got \[1, 3, 4, 4\]"):
        negative_evidence(torch.zeros(1, 3, 4, 4))


def test_frames_without_an_object_take_part_in_no_term_but_their_own():
    logits, frames, labels = random_case(clips=3)
    labels[1] = IGNORE  # a CAM of nothing gives no seed
    tags = torch.tensor([0, NO_CLASS, 1])
    losses = NegevObjective(BASE, 2.0)(*as_clips(logits, frames, tags=tags), PixelLabels(labels), barrier_t=1.0)
    kept = torch.tensor([0, 2])
    alone = BASE(*as_clips(logits[kept], frames[kept]), PixelLabels(labels[kept]), barrier_t=1.0)
    for name, term in alone.terms.items():
        torch.testing.assert_close(losses.terms[name], term)
    torch.testing.assert_close(losses.terms["negatives"], negative_evidence(logits[1]))
    assert {name: int(count) for name, count in losses.counts.items()} == {
        "seeds": 128,
        "crf": 2,
        "size": 2,
        "negatives": 1,
    }
    torch.testing.assert_close(losses.total, alone.total + 2 * losses.terms["negatives"])


@pytest.mark.parametrize("tag", [0, NO_CLASS])
def test_a_share_of_one_kind_alone_has_all_terms_and_a_gradient(tag):
    logits, frames, labels = random_case()
    tags = torch.full((2,), tag)
    losses = NegevObjective(BASE, 1.0)(*as_clips(logits, frames, tags=tags), PixelLabels(labels), barrier_t=1.0)
    losses.total.backward()
    assert logits.grad.isfinite().all()
    zero = {"negatives"} if tag == 0 else {"seeds", "crf", "size"}
    assert {name for name, term in losses.terms.items() if float(term.detach()) == 0} == zero
    assert {name for name, count in losses.counts.items() if int(count) == 0} == zero


def test_the_order_of_clips_does_not_matter():
    logits, frames, labels = random_case(clips=4)
    tags, order = torch.tensor([0, NO_CLASS, 1, NO_CLASS]), torch.tensor([3, 2, 1, 0])
    objective = NegevObjective(replace(BASE, crf_weight=0.0), 1.0)
    one = objective(*as_clips(logits, frames, tags=tags), PixelLabels(labels), barrier_t=1.0)
    two = objective(
        *as_clips(logits[order], frames[order], tags=tags[order]), PixelLabels(labels[order]), barrier_t=1.0
    )
    torch.testing.assert_close(one.total, two.total)
