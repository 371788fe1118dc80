import math

import pytest
import torch

from tcam.supervision.losses import crf_energy, log_barrier, partial_cross_entropy, size_barrier, soft_cross_entropy
from tcam.types import IGNORE, PixelLabels


def _three_pixels():
    """A 1 x 3 image, colours (0, 0, 0), (15, 0, 0), (30, 30, 0), and logits whose softmax is (.2, .6, .9) and rest."""
    frames = torch.tensor([[0, 0, 0], [15, 0, 0], [30, 30, 0]], dtype=torch.uint8).T.reshape(1, 3, 1, 3)
    background = torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)
    logits = torch.stack([background.log(), (1 - background).log()]).reshape(1, 2, 1, 3)
    return logits.requires_grad_(), frames


def _labels(values):
    return PixelLabels(torch.tensor(values, dtype=torch.uint8))


def test_partial_cross_entropy_is_the_mean_over_labelled_pixels_of_the_batch():
    logits = torch.tensor([[[[0.0, 2.0]], [[1.0, 0.0]]], [[[0.5, 0.0]], [[0.5, 9.0]]]])
    loss = partial_cross_entropy(logits, _labels([[[1, 0]], [[0, IGNORE]]]))
    terms = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-2)), math.log(2)]
    assert float(loss) == pytest.approx(sum(terms) / 3)


def test_soft_cross_entropy_is_the_formula_and_least_where_the_map_is_its_target():
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(2, 5, 6, generator=generator, dtype=torch.float64).clamp(0.05, 0.95)
    logits = torch.randn(2, 2, 5, 6, generator=generator, dtype=torch.float64).requires_grad_()
    background, foreground = logits.softmax(1).log().unbind(1)
    expected = -(targets * foreground + (1 - targets) * background).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)
    best = torch.stack([(1 - targets).log(), targets.log()], dim=1).requires_grad_()
    (slope,) = torch.autograd.grad(soft_cross_entropy(best, targets), best)
    assert slope.abs().max() < 1e-12


def test_soft_targets_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"targets must be \[1, 4, 4\]"):
        soft_cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 5))


def test_ignored_pixels_get_no_gradient():
    logits = torch.randn(1, 2, 1, 3, requires_grad=True)
    partial_cross_entropy(logits, _labels([[[1, IGNORE, 0]]])).backward()
    assert logits.grad[0, :, 0, 1].tolist() == [0.0, 0.0]
    assert logits.grad[0, :, 0, 0].abs().min() > 0


def test_no_label_at_all_costs_nothing_and_pulls_nowhere():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = partial_cross_entropy(logits, _labels([[[IGNORE] * 2] * 2]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


def test_partial_cross_entropy_has_the_gradient_of_the_float64_formula():
    logits = torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    labels = _labels([[[1, 0], [IGNORE, 1]], [[IGNORE, IGNORE], [0, 0]]])
    partial_cross_entropy(logits, labels).backward()
    targets = labels.labels.long()
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE), logits)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("sigma_xy", "golden"), [(None, -2.658490), (100.0, -2.658456)])
def test_the_exact_energy_has_the_published_value(sigma_xy, golden):
    logits, frames = _three_pixels()
    energy = crf_energy(logits, frames, sigma_rgb=15.0, sigma_xy=sigma_xy, whole=True, exact=True)
    assert float(energy.detach()) == pytest.approx(golden, abs=1e-6)


def test_what_an_energy_leaves_out_is_half_the_sum_of_the_kernel():
    logits, frames = _three_pixels()
    settings = {"sigma_rgb": 15.0, "sigma_xy": None, "exact": True}
    left_out = crf_energy(logits, frames, **settings) - crf_energy(logits, frames, **settings, whole=True)
    kernel = 3 + 2 * (0.606531 + 0.018316 + 0.082085)  # method.md 6.4
    assert float(left_out.detach()) == pytest.approx(kernel / 2, abs=1e-5)


@pytest.mark.parametrize("sigma_xy", [None, 100.0])
def test_the_fast_energy_is_near_it_even_on_three_pixels(sigma_xy):
    logits, frames = _three_pixels()
    energy = crf_energy(logits, frames, sigma_rgb=15.0, sigma_xy=sigma_xy, whole=True)
    assert float(energy.detach()) == pytest.approx(-2.6585, rel=0.04)


def test_the_energys_gradient_is_the_published_one_through_the_softmax():
    logits, frames = _three_pixels()
    crf_energy(logits, frames, sigma_rgb=15.0, sigma_xy=None, exact=True).sum().backward()
    slope = torch.tensor([[-1.160805, -1.590365, -1.905828], [-2.088888, -1.786866, -0.294973]], dtype=torch.float64)
    maps = logits.detach().softmax(dim=1)[0, :, 0].requires_grad_(False)
    expected = maps * (slope - (maps * slope).sum(dim=0))  # the softmax's transposed Jacobian
    torch.testing.assert_close(logits.grad[0, :, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma_xy", [None, 3.0])
def test_the_exact_energy_passes_gradcheck(sigma_xy):
    frames = torch.randint(0, 60, (2, 3, 2, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    logits = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z: crf_energy(z, frames, sigma_rgb=15.0, sigma_xy=sigma_xy, exact=True), logits
    )


def test_the_fast_energy_falls_along_its_gradient_by_the_first_order_amount():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, 16, 16), generator=generator).to(torch.uint8)
    logits = torch.randn(2, 2, 16, 16, generator=generator, dtype=torch.float64).requires_grad_()
    crf_energy(logits, frames, sigma_rgb=40.0, sigma_xy=8.0).mean().backward()
    step = 0.01 * logits.grad / logits.grad.norm()
    ahead, behind = (
        crf_energy(logits.detach() + sign * step, frames, sigma_rgb=40.0, sigma_xy=8.0).mean() for sign in (1, -1)
    )
    assert float(ahead - behind) == pytest.approx(0.02 * float(logits.grad.norm()), rel=0.02)


def test_each_image_has_its_own_energy_and_its_own_gradient_from_above():
    logits, frames = _three_pixels()
    settings = {"sigma_rgb": 15.0, "sigma_xy": None, "exact": True}
    one = crf_energy(logits, frames, **settings)
    other = logits.detach().flip(3).requires_grad_()
    two = crf_energy(torch.cat([logits, other]), frames.expand(2, -1, -1, -1), **settings)
    assert (one.shape, two.shape) == ((1,), (2,))
    torch.testing.assert_close(two[:1], one)
    assert float(two[1].detach()) != pytest.approx(float(one.detach()), rel=1e-3)
    (plain,) = torch.autograd.grad(one.sum(), logits)
    tripled, left_out = torch.autograd.grad((two * torch.tensor([3.0, 0.0])).sum(), (logits, other))
    torch.testing.assert_close(tripled, 3 * plain)
    assert not left_out.any()


def test_no_image_costs_nothing():
    logits = torch.zeros(0, 2, 4, 4, requires_grad=True)
    energies = crf_energy(logits, torch.zeros(0, 3, 4, 4), sigma_rgb=15.0, sigma_xy=None)
    energies.sum().backward()
    assert energies.shape == (0,)
    assert logits.grad.shape == logits.shape


def test_the_energy_stays_float32_for_half_precision_logits_inside_autocast():
    logits, frames = torch.randn(1, 2, 16, 16), torch.randint(0, 256, (1, 3, 16, 16)).to(torch.uint8)
    expected = crf_energy(logits.bfloat16().float(), frames, sigma_rgb=15.0, sigma_xy=8.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        energy = crf_energy(logits.bfloat16(), frames, sigma_rgb=15.0, sigma_xy=8.0)
    assert energy.dtype == torch.float32
    torch.testing.assert_close(energy, expected)


@pytest.mark.parametrize(
    ("t", "x", "golden"),
    [
        (1.0, -2.0, -0.693147),
        (1.0, -1.0, 0.0),
        (1.0, 0.0, 1.0),
        (1.0, 1.0, 2.0),
        (2.0, -0.25, 0.693147),
        (2.0, 0.0, 1.193147),
        (2.0, 1.0, 3.193147),
        (10.0, -0.01, 0.460517),
        (10.0, 0.0, 0.560517),
    ],
)
def test_the_barrier_has_the_published_values(t, x, golden):
    assert float(log_barrier(torch.tensor(x, dtype=torch.float64), t)) == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("t", [1.0, 2.7, 10.0])
def test_the_barrier_and_its_slope_are_continuous_at_the_knee(t):
    knee = -1 / t**2
    x = torch.tensor([knee * (1 + 1e-9), knee * (1 - 1e-9)], dtype=torch.float64, requires_grad=True)
    barrier = log_barrier(x, t)
    (slope,) = torch.autograd.grad(barrier.sum(), x)
    assert float((barrier[0] - barrier[1]).detach().abs()) < 1e-7
    assert slope.tolist() == pytest.approx([t, t], rel=1e-6)


def test_the_barrier_passes_gradcheck_and_its_gradient_is_finite_everywhere():
    x = torch.tensor([-1e9, -5.0, -1.0001, -0.5, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: log_barrier(v, 1.3), x[1:].detach().requires_grad_())
    (slope,) = torch.autograd.grad(log_barrier(x, 1.3).sum(), x)
    assert slope.isfinite().all()


def test_the_size_barrier_has_the_published_value():
    assert 0.01 * float(size_barrier(torch.zeros(3, 2, 224, 224), 1.0)) == pytest.approx(-0.101301, abs=1e-6)


def test_the_size_barrier_passes_gradcheck_and_rises_as_a_side_vanishes():
    logits = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: size_barrier(z, 1.5), logits)
    even = torch.zeros(1, 2, 8, 8)
    empty = even + torch.tensor([20.0, -20.0]).view(1, 2, 1, 1)
    assert size_barrier(empty, 1.0) > size_barrier(even, 1.0)


def test_a_sequence_counts_as_one_image():
    """Its energy and gradient are those of the image that holds all of its frames, for a gradient of any size, too."""
    logits, frames = torch.randn(2, 3, 2, 6, 5, dtype=torch.float64), torch.randint(0, 256, (2, 3, 3, 6, 5))
    sequences, images = logits.clone().requires_grad_(), logits.transpose(1, 2).flatten(2, 3).requires_grad_()
    settings = {"sigma_rgb": 40.0, "sigma_xy": None, "exact": True}
    energies = crf_energy(sequences, frames, **settings)
    expected = crf_energy(images, frames.transpose(1, 2).flatten(2, 3), **settings)
    torch.testing.assert_close(energies, expected)
    scale = torch.tensor([3.0, -0.5], dtype=torch.float64)
    (energies @ scale).backward()
    (expected @ scale).backward()
    torch.testing.assert_close(sequences.grad.transpose(1, 2).flatten(2, 3), images.grad)


def test_shapes_and_sharpness_that_do_not_fit_are_refused():
    logits, frames = torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"map_logits must be \[N, 2, H, W\], got \[1, 3, 4, 4\]"):
        size_barrier(frames, 1.0)
    with pytest.raises(ValueError, match=r"labels must be \[1, 4, 4\] like map_logits, got \[1, 4\]"):
        partial_cross_entropy(logits, _labels([[0, 0, 0, 0]]))
    with pytest.raises(ValueError, match=r"frames must be \[1, 3, 4, 4\] like map_logits, got \[1, 3, 8, 8\]"):
        crf_energy(logits, torch.zeros(1, 3, 8, 8), sigma_rgb=15.0, sigma_xy=None)
    with pytest.raises(ValueError, match="sigmas must be above 0, got sigma_rgb 0"):
        crf_energy(logits, frames, sigma_rgb=0.0, sigma_xy=None)
    with pytest.raises(ValueError, match=r"sigma_xy None, got \[1, 1, 2, 4, 4\] and sigma_xy 9.0"):
        crf_energy(logits[None], frames[None], sigma_rgb=15.0, sigma_xy=9.0)
    with pytest.raises(ValueError, match="t must be above 0, got 0"):
        log_barrier(torch.zeros(1), 0.0)
