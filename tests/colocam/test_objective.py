import pytest
import torch

from colocam.colour_crf import joint_colour_energy
from colocam.feature_energy import joint_feature_energy
from colocam.objective import ColocamObjective, FeatureSpace
from tcam.supervision.objective import TcamObjective
from tcam.types import PixelLabels
from tests.helpers.clips import as_clips

BASE = TcamObjective(seed_weight=1.0, crf_weight=2e-9, size_weight=0.01, sigma_rgb=15.0, sigma_xy=10.0)


def _objective(**changes):
    settings = {"joint_weight": 4.0, "joint_sigma_rgb": 12.0, "adaptive": True}
    return ColocamObjective(BASE, **{**settings, **changes})


def _case(count=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, count, 2, 12, 12, generator=generator).requires_grad_()
    frames = torch.randint(0, 256, (2, count, 3, 12, 12), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 2, (2 * count, 12, 12), generator=generator).to(torch.uint8)
    return logits, frames, PixelLabels(labels)


def _clips(logits, frames, labels):
    return *as_clips(logits, frames), labels


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_terms_are_tcams_and_the_joint_energy(adaptive):
    logits, frames, labels = _case()
    losses = _objective(adaptive=adaptive)(*_clips(logits, frames, labels), barrier_t=2.0)
    base = BASE(*_clips(logits, frames, labels), barrier_t=2.0)
    assert list(losses.terms) == ["seeds", "crf", "size", "joint"]
    assert all(torch.equal(losses.terms[name], term) for name, term in base.terms.items())
    joint = joint_colour_energy(logits, frames, sigma_rgb=12.0, adaptive=adaptive)
    assert torch.equal(losses.terms["joint"], joint)
    torch.testing.assert_close(losses.total, base.total + 4 * joint)


def test_the_weight_scales_the_gradient_of_the_joint_term():
    logits, frames, labels = _case()
    slopes = [
        torch.autograd.grad(
            _objective(joint_weight=weight)(*_clips(logits, frames, labels), barrier_t=1.0).total, logits
        )[0]
        for weight in (0.0, 4.0, 8.0)
    ]
    joint = slopes[1] - slopes[0]
    assert joint.abs().max() > 0
    torch.testing.assert_close(slopes[2] - slopes[0], 2 * joint, rtol=1e-3, atol=1e-7)


def test_without_weight_it_is_tcams_objective():
    losses = _objective(joint_weight=0.0)(*_clips(*_case()), barrier_t=1.0)
    assert list(losses.terms) == list(losses.weights) == ["seeds", "crf", "size"]


def test_clips_of_one_frame_add_a_joint_term_of_nothing():
    logits, frames, labels = _case(count=1)
    losses = _objective()(*_clips(logits, frames, labels), barrier_t=1.0)
    assert float(losses.terms["joint"].detach()) == 0.0
    torch.testing.assert_close(losses.total, BASE(*_clips(logits, frames, labels), barrier_t=1.0).total)


def test_with_features_the_joint_term_compares_those():
    logits, frames, labels = _case()
    features = torch.rand(2, 3, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    output, batch = as_clips(logits, frames, affinity=features.flatten(0, 1))
    losses = _objective(features=FeatureSpace(0.5, 3))(output, batch, labels, barrier_t=2.0)
    base = BASE(output, batch, labels, barrier_t=2.0)
    joint = joint_feature_energy(logits, features, sigma=0.5, components=3, adaptive=True)
    assert torch.equal(losses.terms["joint"], joint)
    assert losses.counts["joint"] == 2
    torch.testing.assert_close(losses.total, base.total + 4 * joint)


def test_features_that_are_missing_are_named():
    with pytest.raises(ValueError, match="the joint term of features needs an output with affinity features, got none"):
        _objective(features=FeatureSpace(0.5, 3))(*_clips(*_case()), barrier_t=2.0)
