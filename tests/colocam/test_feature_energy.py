import math

import pytest
import torch
from torch.nn import functional

from colocam.feature_energy import joint_feature_energy
from tcam.supervision.joint_walk import principal_components


def by_hand():
    """Two frames of 1 x 2 positions; left ones have one feature, right ones another.

    The features reduce to +1 and -1, which are 2 apart: with sigma 2 the kernel is exp(-1/2) between left and right and
    1 within a side. The foreground is (.9, .2) and (.5, .4).
    """
    features = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]] * 2)[None]
    foreground = torch.tensor([[[0.9, 0.2]], [[0.5, 0.4]]], dtype=torch.float64)[None]
    logits = torch.stack([(1 - foreground).log(), foreground.log()], dim=2)
    return logits.requires_grad_(), features


def random_case(clips=2, length=3, side=6, size=(3, 2)):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(clips, length, 2, side, side, generator=generator, dtype=torch.float64)
    features = torch.rand(clips, length, 5, *size, generator=generator)
    return logits.requires_grad_(), features


def energy(logits, features, *, sigma=0.7, components=3, adaptive=False):
    return joint_feature_energy(logits, features, sigma=sigma, components=components, adaptive=adaptive)


def slope(logits, features, **settings):
    (found,) = torch.autograd.grad(energy(logits, features, **settings), logits)
    return found


def naive(logits, features, *, sigma=0.7, components=3):
    """Sum over labels and all pairs of positions, one at a time."""
    energies = []
    for maps, sequence in zip(logits.softmax(dim=2), features, strict=True):
        small = functional.interpolate(maps, size=sequence.shape[2:], mode="area")
        labels = small.permute(0, 2, 3, 1).flatten(0, 2)  # [positions, 2]
        points = principal_components(sequence, components).double()
        total = torch.zeros((), dtype=torch.float64)
        for i in range(len(points)):
            for j in range(len(points)):
                kernel = math.exp(-float((points[i] - points[j]).square().sum()) / (2 * sigma**2))
                total = total - kernel * (labels[i] * labels[j]).sum()
        energies.append(total)
    return torch.stack(energies)


def test_the_energy_has_the_value_of_a_calculation_by_hand():
    k = math.exp(-0.5)
    # q = S_1 - S_0 is .8 and 0 on the left, -.6 and -.2 on the right: q^T K q = .64 + .64 - 2 k .64; 1^T K 1 = 8 + 8 k
    assert -(1.28 - 1.28 * k + 8 + 8 * k) / 2 == pytest.approx(-6.677943, abs=1e-6)
    logits, features = by_hand()
    assert energy(logits, features, sigma=2.0, components=2).item() == pytest.approx(-6.677943, abs=1e-5)
    assert energy(logits, features, sigma=2.0, components=2, adaptive=True).item() == pytest.approx(-1)


def test_the_gradient_is_that_of_a_calculation_by_hand():
    logits, features = by_hand()
    filtered = 0.8 * (1 - math.exp(-0.5))  # K q: positive on the left, its negative on the right
    q = torch.tensor([[[0.8, -0.6]], [[0.0, -0.2]]], dtype=torch.float64)[None]
    expected = (
        -filtered * torch.tensor([1.0, -1.0], dtype=torch.float64) * (1 - q.square()) / 2
    )  # dq = (1 - q^2) / 2 dz
    found = slope(logits, features, sigma=2.0, components=2)
    torch.testing.assert_close(found, torch.stack([-expected, expected], dim=2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 2), (2, 2), (4, 5)])  # 4 and 5 do not divide 6
def test_energy_and_gradient_are_those_of_a_loop_over_pairs(size):
    logits, features = random_case(size=size)
    expected = naive(logits, features)
    (expected_slope,) = torch.autograd.grad(expected.mean(), logits)
    torch.testing.assert_close(energy(logits, features), expected.mean().detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(slope(logits, features), expected_slope, rtol=1e-4, atol=1e-7)


def test_the_energy_passes_gradcheck():
    logits, features = random_case(clips=1, length=2, side=2, size=(2, 1))
    assert torch.autograd.gradcheck(lambda z: energy(z, features), logits)


def test_up_to_a_constant_it_punishes_like_positions_with_unlike_labels():
    features = random_case()[1]
    constants = []
    for seed in (1, 2):
        maps = torch.rand(1, 3, 1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        maps = torch.cat([1 - maps, maps], dim=2)
        points = principal_components(features[0], 3).double() / 0.7
        kernel = torch.exp(-0.5 * torch.cdist(points, points).square())
        flat = maps[0].transpose(0, 1).flatten(1)
        potts = sum(s @ kernel @ (1 - s) for s in flat)
        constants.append((potts - energy(maps.log(), features[:1])).item())
    assert constants[0] == pytest.approx(constants[1], rel=1e-5)


def test_the_adaptive_gradient_is_the_plain_one_over_the_size_of_each_energy():
    logits, features = random_case()
    sizes = naive(logits, features).detach().abs()
    found, plain = slope(logits, features, adaptive=True), slope(logits, features)
    torch.testing.assert_close(found, plain / sizes.view(-1, 1, 1, 1, 1), rtol=1e-5, atol=1e-9)


def test_the_order_of_frames_does_not_matter():
    logits, features = random_case()
    torch.testing.assert_close(energy(logits.flip(1), features.flip(1)), energy(logits, features), rtol=1e-5, atol=0)


def test_a_step_downhill_brings_the_maps_of_like_positions_together():
    features = torch.zeros(1, 2, 2, 4, 4)
    features[:, :, 0, :, :2], features[:, :, 1, :, 2:] = 1, 1
    logits = torch.zeros(1, 2, 2, 64, 64)
    logits[0, 0, 1, :, :32] = 1.0  # frame 0 finds the left side, frame 1 nothing
    found = slope(logits.requires_grad_(), features, sigma=0.4, adaptive=True)
    assert (found[0, 1, 1, :, :32] < 0).all()
    assert found[0, 1, 1, :, 32:].abs().max() < 1e-2 * found[0, 1, 1, :, :32].abs().max()


@pytest.mark.parametrize(("clips", "length"), [(2, 1), (0, 3)])
def test_a_frame_by_itself_adds_nothing(clips, length):
    logits, features = random_case(clips=clips, length=length)
    assert energy(logits, features, adaptive=True).item() == 0
    assert not slope(logits, features, adaptive=True).any()


def test_features_that_are_all_alike_give_finite_values():
    logits, features = random_case()
    assert slope(logits, torch.ones_like(features)).isfinite().all()


def test_no_gradient_goes_through_the_features():
    logits, features = random_case()
    energy(logits, features.requires_grad_()).backward()
    assert features.grad is None
    assert logits.grad.any()


def test_arithmetic_of_16_bits_does_not_reach_the_energy():
    logits, features = random_case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = energy(logits.float(), features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, energy(logits, features).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 3, 6, 6)}, r"map_logits must be \[B, T, 2, H, W\], got \[2, 3, 3, 6, 6\]"),
        ({"features": torch.zeros(6, 5, 3, 2)}, r"features must be \[2, 3, C, h, w\] like map_logits, got \[6, 5"),
        ({"features": torch.zeros(2, 2, 5, 3, 2)}, r"features must be \[2, 3, C, h, w\] like map_logits, got \[2, 2"),
        ({"sigma": 0.0}, "sigma must be above 0 and components 1 or more, got 0.0 and 3"),
        ({"components": 0}, "sigma must be above 0 and components 1 or more, got 0.7 and 0"),
    ],
)
def test_other_shapes_and_settings_are_refused(change, message):
    logits, features = random_case()
    with pytest.raises(ValueError, match=message):
        energy(**{"logits": logits, "features": features, **change})
