import pytest
import torch

from colocam.colour_crf import joint_colour_energy


def _three_frames():
    """Three frames of one pixel: the 1 x 3 image of the published value, and logits whose softmax is (.2, .6, .9)."""
    frames = torch.tensor([[0, 0, 0], [15, 0, 0], [30, 30, 0]], dtype=torch.uint8).reshape(1, 3, 3, 1, 1)
    background = torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)
    logits = torch.stack([background.log(), (1 - background).log()], dim=1).reshape(1, 3, 2, 1, 1)
    return logits.requires_grad_(), frames


def _random(batch=2, count=3, side=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 60, (batch, count, 3, side, side), generator=generator).to(torch.uint8)
    logits = torch.randn(batch, count, 2, side, side, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), frames


def _exactly(logits, frames, *, adaptive=False):
    return joint_colour_energy(logits, frames, sigma_rgb=15.0, adaptive=adaptive, exact=True)


def _slope(logits, frames, *, adaptive=False):
    (slope,) = torch.autograd.grad(_exactly(logits, frames, adaptive=adaptive), logits)
    return slope


@pytest.mark.parametrize(("adaptive", "golden"), [(False, -2.658490), (True, -1.0)])
def test_the_energy_over_frames_has_the_published_value(adaptive, golden):
    assert float(_exactly(*_three_frames(), adaptive=adaptive).detach()) == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize(
    ("adaptive", "weight", "slopes"),
    [
        (False, 1.0, [[-1.160805, -1.590365, -1.905828], [-2.088888, -1.786866, -0.294973]]),
        (True, 9.0, [[-3.929767, -5.383992, -6.451954], [-7.071680, -6.049222, -0.998596]]),
    ],
)
def test_the_gradient_is_the_published_one_through_the_softmax(adaptive, weight, slopes):
    logits, frames = _three_frames()
    slope = torch.tensor(slopes, dtype=torch.float64).T
    maps = logits.detach().softmax(dim=2)[0, :, :, 0, 0]
    expected = maps * (slope - (maps * slope).sum(dim=1, keepdim=True))  # the softmax's transposed Jacobian
    found = weight * _slope(logits, frames, adaptive=adaptive)[0, :, :, 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_energy_passes_gradcheck():
    logits, frames = _random(side=2)
    assert torch.autograd.gradcheck(lambda z: _exactly(z, frames), logits)


def test_the_adaptive_gradient_is_the_plain_one_over_the_size_of_each_energy():
    logits, frames = _random()
    adaptive = _slope(logits, frames, adaptive=True)
    for i in range(2):
        one = (logits[i : i + 1], frames[i : i + 1])
        size = _exactly(*one).detach().abs()
        torch.testing.assert_close(adaptive[i : i + 1], _slope(*one) / size / 2)  # the mean over two sequences


def test_sequences_do_not_see_one_another():
    logits, frames = _random()
    parts = [_exactly(logits[i : i + 1], frames[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(_exactly(logits, frames), (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("adaptive", [False, True])
def test_neither_the_order_of_frames_nor_of_pixels_matters(adaptive):
    logits, frames = _random()
    slope = _slope(logits, frames, adaptive=adaptive)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(_exactly(logits[:, order], frames[:, order]), _exactly(logits, frames))
    moved = _slope(logits.detach()[:, order].requires_grad_(), frames[:, order], adaptive=adaptive)
    torch.testing.assert_close(moved, slope[:, order])
    places = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    mixed = [part.flatten(3)[..., places].unflatten(3, (4, 4)) for part in (logits.detach(), frames)]
    torch.testing.assert_close(_exactly(*mixed), _exactly(logits, frames))
    mixed_slope = _slope(mixed[0].requires_grad_(), mixed[1], adaptive=adaptive)
    torch.testing.assert_close(mixed_slope, slope.flatten(3)[..., places].unflatten(3, (4, 4)))


@pytest.mark.parametrize("times", [2, 3])
def test_repeating_a_frame_scales_energy_and_gradients_as_it_must(times):
    logits, frames = _random(count=2)
    more, more_frames = logits.detach().repeat(1, times, 1, 1, 1).requires_grad_(), frames.repeat(1, times, 1, 1, 1)
    torch.testing.assert_close(_exactly(more, more_frames), times**2 * _exactly(logits, frames))
    torch.testing.assert_close(_slope(more, more_frames)[:, :2], times * _slope(logits, frames))
    torch.testing.assert_close(
        _slope(more, more_frames, adaptive=True)[:, :2], _slope(logits, frames, adaptive=True) / times
    )


def test_the_fast_form_is_near_the_exact_one():
    coarse = torch.rand(2, 3 * 3, 5, 5, generator=torch.Generator().manual_seed(0))
    frames = torch.nn.functional.interpolate(coarse, size=24, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    frames = frames.unflatten(1, (3, 3))
    logits = torch.linspace(-3, 3, 24, dtype=torch.float64).expand(2, 3, 2, 24, 24).clone()
    logits[:, :, 0] *= -1
    logits.requires_grad_()
    fast = joint_colour_energy(logits, frames, sigma_rgb=15.0, adaptive=False)
    assert float(fast.detach()) == pytest.approx(float(_exactly(logits, frames).detach()), rel=0.05)
    (slope,) = torch.autograd.grad(fast, logits)
    exact = _slope(logits, frames)
    assert float(torch.nn.functional.cosine_similarity(slope.flatten(), exact.flatten(), dim=0)) > 0.995


@pytest.mark.parametrize("shape", [(2, 1), (0, 4)])
@pytest.mark.parametrize("adaptive", [False, True])
def test_single_frames_and_no_sequences_cost_nothing_and_pull_nowhere(shape, adaptive):
    logits = torch.randn(*shape, 2, 4, 4, requires_grad=True)
    frames = torch.zeros(*shape, 3, 4, 4, dtype=torch.uint8)
    energy = joint_colour_energy(logits, frames, sigma_rgb=15.0, adaptive=adaptive)
    energy.backward()
    assert float(energy.detach()) == 0.0
    assert energy.dtype == torch.float32
    assert not logits.grad.any()


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_map_that_is_not_a_number_shows(adaptive):
    logits, frames = _random(side=8)
    logits = logits.detach().float()
    logits[0, 1, 0, 2, 2] = torch.nan
    assert joint_colour_energy(logits, frames, sigma_rgb=15.0, adaptive=adaptive).isnan()


def test_shapes_and_sigmas_that_do_not_fit_are_refused():
    logits, frames = torch.zeros(1, 2, 2, 4, 4), torch.zeros(1, 2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"map_logits must be \[B, T, 2, H, W\], got \[2, 2, 4, 4\]"):
        joint_colour_energy(logits[0], frames, sigma_rgb=15.0, adaptive=True)
    with pytest.raises(ValueError, match=r"frames must be \[1, 2, 3, 4, 4\] like map_logits, got \[1, 1, 3, 4, 4\]"):
        joint_colour_energy(logits, frames[:, :1], sigma_rgb=15.0, adaptive=True)
    for count in (1, 2):
        with pytest.raises(ValueError, match="sigma_rgb must be above 0, got 0"):
            joint_colour_energy(logits[:, :count], frames[:, :count], sigma_rgb=0.0, adaptive=True)
