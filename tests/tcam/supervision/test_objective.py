from dataclasses import replace

import pytest
import torch

from tcam.supervision.losses import crf_energy, partial_cross_entropy, size_barrier, soft_cross_entropy
from tcam.supervision.objective import TcamObjective, frame_tags
from tcam.types import PixelLabels
from tests.helpers.clips import as_clips


def _objective(**changes):
    settings = {"seed_weight": 1.0, "crf_weight": 2e-9, "size_weight": 0.01, "sigma_rgb": 15.0, "sigma_xy": 10.0}
    return TcamObjective(**{**settings, **changes})


def _case():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 12, 12, generator=generator).requires_grad_()
    frames = torch.randint(0, 256, (2, 3, 12, 12), generator=generator).to(torch.uint8)
    labels = PixelLabels(torch.randint(0, 2, (2, 12, 12), generator=generator).to(torch.uint8))
    return logits, frames, labels


def _clips(logits, frames, labels, clips=1):
    return *as_clips(logits.unflatten(0, (clips, -1)), frames.unflatten(0, (clips, -1))), labels


def test_the_terms_are_the_three_losses_unweighted():
    logits, frames, labels = _case()
    losses = _objective()(*_clips(logits, frames, labels), barrier_t=2.0)
    assert torch.equal(losses.terms["seeds"], partial_cross_entropy(logits, labels))
    assert torch.equal(losses.terms["crf"], crf_energy(logits, frames, sigma_rgb=15.0, sigma_xy=10.0).mean())
    assert torch.equal(losses.terms["size"], size_barrier(logits, 2.0))


def test_the_total_is_their_weighted_sum_and_reaches_the_logits():
    logits, frames, labels = _case()
    losses = _objective(crf_weight=0.5)(*_clips(logits, frames, labels), barrier_t=1.0)
    expected = losses.terms["seeds"] + 0.5 * losses.terms["crf"] + 0.01 * losses.terms["size"]
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "setting"), [("seeds", "seed_weight"), ("crf", "crf_weight"), ("size", "size_weight")]
)
def test_a_term_of_weight_0_is_left_out(name, setting):
    losses = _objective(**{setting: 0.0})(*_clips(*_case()), barrier_t=1.0)
    assert set(losses.terms) == set(losses.weights) == {"seeds", "crf", "size"} - {name}


def test_soft_targets_are_the_cams_of_the_clips():
    logits, frames, labels = _case()
    cams = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1))
    output, batch = as_clips(logits.unflatten(0, (1, 2)), frames.unflatten(0, (1, 2)), cams=cams[None])
    objective = _objective(seed_weight=0.0, crf_weight=0.0, size_weight=0.0, soft_weight=2.0)
    losses = objective(output, batch, labels, barrier_t=1.0)
    expected = 2 * soft_cross_entropy(logits, cams)
    assert list(losses.terms) == ["soft"]
    torch.testing.assert_close(losses.total, expected)


def test_soft_targets_need_cams():
    with pytest.raises(ValueError, match="need clips with CAMs"):
        _objective(soft_weight=1.0)(*_clips(*_case()), barrier_t=1.0)


def test_it_does_not_matter_how_frames_lie_in_clips():
    one, two = (_objective()(*_clips(*_case(), clips=clips), barrier_t=1.0) for clips in (1, 2))
    assert {name: float(term.detach()) for name, term in one.terms.items()} == {
        name: float(term.detach()) for name, term in two.terms.items()
    }


def test_no_frame_at_all_costs_nothing():
    logits, frames = torch.zeros(0, 1, 2, 4, 4, requires_grad=True), torch.zeros(0, 1, 3, 4, 4, dtype=torch.uint8)
    labels = PixelLabels(torch.zeros(0, 4, 4, dtype=torch.uint8))
    losses = _objective()(*as_clips(logits, frames), labels, barrier_t=1.0)
    losses.total.backward()
    assert {name: float(term.detach()) for name, term in losses.terms.items()} == {"seeds": 0, "crf": 0, "size": 0}


def test_maps_of_other_frames_and_a_network_without_a_decoder_are_refused():
    output, batch, labels = _clips(*_case())
    with pytest.raises(
        ValueError, match=r"must be \[2, 2, 12, 12\] for frames \[1, 2, 3, 12, 12\], got \[2, 2, 6, 12\]"
    ):
        _objective()(replace(output, map_logits=output.map_logits[:, :, :6]), batch, labels, barrier_t=1.0)
    with pytest.raises(ValueError, match=r"got none \(a network without a decoder\)"):
        _objective()(replace(output, map_logits=None), batch, labels, barrier_t=1.0)


def test_all_frames_of_a_clip_have_its_tag():
    batch = as_clips(torch.rand(2, 3, 2, 4, 4), torch.zeros(2, 3, 3, 4, 4), tags=torch.tensor([4, 7]))[1]
    assert frame_tags(batch).tolist() == [4, 4, 4, 7, 7, 7]
