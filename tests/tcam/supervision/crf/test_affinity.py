import math

import pytest
import torch

from tcam.supervision.crf import colour_grid
from tcam.supervision.crf.affinity import affinity_sum, gaussian_energies, gaussian_filter
from tcam.supervision.crf.colour_bins import adaptive_bins, histogram


@pytest.fixture(autouse=True, params=["on a CPU", "as on accelerators"])
def _form(request, monkeypatch):
    """Every test here holds for each form of the fast filter."""
    if request.param == "on a CPU":
        assert colour_grid._form(torch.device("cpu")) is colour_grid.filter_cells
    else:
        monkeypatch.setattr(colour_grid, "_on_cpu", lambda device: False)
        assert colour_grid._form(torch.device("cpu")) is colour_grid.filter_batch


def _pixel_by_pixel(frame, sigma_rgb, sigma_xy):
    """Write out W of one small image by its definition."""
    height, width = frame.shape[1:]
    places = [(y, x) for y in range(height) for x in range(width)]
    kernel = torch.zeros(len(places), len(places), dtype=torch.float64)
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            distance = (frame[:, y, x].double() - frame[:, v, u].double()).square().sum() / (2 * sigma_rgb**2)
            if sigma_xy is not None:
                distance += ((y - v) ** 2 + (x - u) ** 2) / (2 * sigma_xy**2)
            kernel[i, j] = torch.exp(-distance)
    return kernel


def _smooth_frames(count, side, seed=0):
    """Make colourful images with as few distinct colours nearby as photographs have."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)
    return (255 * fine).to(torch.uint8)


def _blob(side):
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    return torch.tanh(2 * torch.exp(-3 * (x.square() + (y - 0.2).square())) - 1)[None, None]


@pytest.mark.parametrize("sigma_xy", [None, 2.0])
def test_the_exact_filter_is_the_definition(sigma_xy):
    frames = torch.randint(0, 60, (2, 3, 3, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    values = torch.rand(2, 2, 3, 4, dtype=torch.float64)
    settings = {"sigma_rgb": 15.0, "sigma_xy": sigma_xy, "exact": True}
    filtered, total = gaussian_filter(values, frames, **settings), affinity_sum(frames, **settings)
    for image in range(2):
        kernel = _pixel_by_pixel(frames[image], 15.0, sigma_xy)
        torch.testing.assert_close(filtered[image].flatten(1), (kernel @ values[image].flatten(1).T).T)
        torch.testing.assert_close(total[image], kernel.sum())


def test_the_exact_filter_is_the_same_over_several_slabs():
    frames, values = _smooth_frames(1, 40), torch.rand(1, 1, 40, 40)  # 1600 pixels, two slabs
    whole = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=None, exact=True)
    pixels = frames.double().flatten(2)[0].T / 15
    kernel = torch.exp(-(pixels[:, None] - pixels).square().sum(2) / 2)
    torch.testing.assert_close(whole.flatten().double(), kernel @ values.flatten().double())


@pytest.mark.parametrize("sigma_xy", [None, 20.0])
def test_the_fast_filter_is_near_the_exact_one(sigma_xy):
    frames, values = _smooth_frames(3, 48), _blob(48).expand(3, -1, -1, -1)
    settings = {"sigma_rgb": 15.0, "sigma_xy": sigma_xy}
    fast = gaussian_filter(values, frames, **settings)
    exact = gaussian_filter(values, frames, **settings, exact=True)
    error = (fast - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.max() < 0.1  # photographs come nearer, with fewer colours at once
    assert torch.nn.functional.cosine_similarity(fast.flatten(1), exact.flatten(1)).min() > 0.996


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("sigma_xy", [None, 20.0])
def test_the_energy_is_the_product_of_a_map_and_the_filtered_one(sigma_xy, exact):
    frames, values = _smooth_frames(3, 40), torch.randn(3, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    energies, filtered = gaussian_energies(
        values, frames, sigma_rgb=15.0, sigma_xy=sigma_xy, tolerance=0.04, exact=exact
    )
    torch.testing.assert_close(energies, (values * filtered).sum(dim=(2, 3)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("exact", [True, False])
def test_frames_of_a_sequence_count_as_one_image_without_positions(exact):
    frames, values = _smooth_frames(6, 24).view(2, 3, 3, 24, 24), torch.rand(2, 1, 3, 24, 24)
    settings = {"sigma_rgb": 15.0, "sigma_xy": None, "exact": exact}
    tall, total = (
        gaussian_filter(values.flatten(2, 3), frames.flatten(2, 3), **settings),
        affinity_sum(frames, **settings),
    )
    torch.testing.assert_close(gaussian_filter(values, frames, **settings), tall.view(values.shape))
    torch.testing.assert_close(total, affinity_sum(frames.flatten(2, 3), **settings))


@pytest.mark.parametrize("sigma_xy", [None, 20.0])
def test_a_lower_tolerance_is_kept(sigma_xy):
    frames, values = _smooth_frames(3, 48), _blob(48).expand(3, -1, -1, -1)
    settings = {"sigma_rgb": 15.0, "sigma_xy": sigma_xy}
    exact = gaussian_filter(values, frames, **settings, exact=True).flatten(1)
    errors = [
        float((gaussian_filter(values, frames, **settings, tolerance=t).flatten(1) - exact).norm() / exact.norm())
        for t in (0.1, 0.04, 0.015)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.03  # twice what photographs show


@pytest.mark.parametrize("sigma_xy", [None, 20.0])
def test_the_sum_of_the_kernel_is_that_of_filtered_ones(sigma_xy):
    frames = _smooth_frames(2, 48)
    settings = {"sigma_rgb": 15.0, "sigma_xy": sigma_xy}
    exact = affinity_sum(frames, **settings, exact=True)
    filtered = gaussian_filter(torch.ones(2, 1, 48, 48), frames, **settings, exact=True)
    torch.testing.assert_close(exact.float(), filtered.sum(dim=(1, 2, 3)))
    torch.testing.assert_close(affinity_sum(frames, **settings).double(), exact, rtol=0.03, atol=0)


@pytest.mark.parametrize("sigma_xy", [None, 200.0])
def test_the_sum_over_very_many_pixels_is_read_off_some(sigma_xy):
    frames = _smooth_frames(1, 450)  # every other row and column
    settings = {"sigma_rgb": 15.0, "sigma_xy": sigma_xy}
    filtered = gaussian_filter(torch.ones(1, 1, 450, 450), frames, **settings)
    assert torch.allclose(affinity_sum(frames, **settings), filtered.sum(dim=(1, 2, 3)), rtol=0.03)


def test_one_pixel_and_nothing_at_all_are_answered():
    settings = {"sigma_rgb": 15.0, "sigma_xy": 10.0}
    for exact in (True, False):
        one = gaussian_filter(torch.full((1, 1, 1, 1), 0.5), torch.full((1, 3, 1, 1), 9), **settings, exact=exact)
        assert float(one) == pytest.approx(0.5, rel=0.04)
        for shape in ((0, 3, 4, 4), (2, 3, 0, 4)):
            empty = torch.zeros(shape)
            filtered = gaussian_filter(empty[:, :2], empty, **settings, exact=exact)
            assert filtered.shape == (shape[0], 2, *shape[2:])
            assert affinity_sum(empty, **settings, exact=exact).tolist() == [0.0] * shape[0]


@pytest.mark.parametrize("size", [(5, 13), (1, 9), (33, 2), (1, 3), (5, 1)])
def test_odd_sizes_are_near_the_exact_filter(size):
    frames, values = _smooth_frames(1, 33)[..., : size[0], : size[1]], torch.rand(1, 2, *size)
    for sigma_xy in (None, 6.0, 1.0):  # 1: all position terms are needed
        fast = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=sigma_xy)
        exact = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=sigma_xy, exact=True)
        assert (fast - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize("sigma_xy", [None, 9.0])
def test_all_forms_and_any_number_of_threads_give_the_same(sigma_xy, monkeypatch):
    frames, values = _smooth_frames(5, 20), torch.rand(5, 2, 20, 20)
    frames[3] //= 4  # needs fewer bins than its neighbours
    settings = {"sigma_rgb": 15.0, "sigma_xy": sigma_xy}

    def results():
        return gaussian_filter(values, frames, **settings), affinity_sum(frames, **settings)

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results()
        torch.set_num_threads(2)
        shared = results()
    finally:
        torch.set_num_threads(threads)
    monkeypatch.undo()
    for others in (shared, results()):
        for one, other in zip(alone, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_sequences_in_either_order_of_memory_are_the_same():
    frames, values = _smooth_frames(6, 20).view(2, 3, 3, 20, 20), torch.rand(2, 3, 1, 20, 20).transpose(1, 2)
    settings = {"sigma_rgb": 15.0, "sigma_xy": None}
    by_frame = frames.transpose(1, 2).contiguous().transpose(1, 2)
    expected = gaussian_filter(values.contiguous(), frames, **settings)
    torch.testing.assert_close(gaussian_filter(values, by_frame, **settings), expected)


def test_maps_that_are_not_numbers_spoil_their_own_image_only():
    frames, values = _smooth_frames(2, 16), torch.rand(2, 1, 16, 16)
    values[0, 0, 3, 3] = math.nan
    filtered = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=8.0)
    assert filtered[0].isnan().any()
    assert filtered[1].isfinite().all()


def test_the_fast_filter_of_one_colour_is_the_sum_or_the_blur_of_the_map():
    frames, values = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8), torch.rand(1, 1, 16, 16)
    flat = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=None)
    assert torch.allclose(flat, values.sum(), rtol=0.04)
    blurred = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=8.0)
    exact = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=8.0, exact=True)
    assert (blurred - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize("sigma_xy", [None, 10.0])
def test_the_fast_filter_is_linear_symmetric_and_positive(sigma_xy):
    frames = _smooth_frames(1, 24)
    a, b = torch.randn(1, 1, 24, 24), torch.randn(1, 1, 24, 24)

    def filtered(values):
        return gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=sigma_xy)

    scale = float(filtered(a).norm())
    assert torch.allclose(filtered(2 * a - b), 2 * filtered(a) - filtered(b), atol=1e-3 * scale)
    assert float((b * filtered(a)).sum()) == pytest.approx(float((a * filtered(b)).sum()), abs=1e-3 * scale)
    assert (a * filtered(a)).sum() > 0


def test_the_colour_filter_does_not_see_where_pixels_are():
    frames, values = _smooth_frames(1, 16), torch.rand(1, 1, 16, 16)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    moved = (frames.flatten(2)[..., order].view_as(frames), values.flatten(2)[..., order].view_as(values))
    expected = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=None).flatten(2)[..., order]
    got = gaussian_filter(moved[1], moved[0], sigma_rgb=15.0, sigma_xy=None).flatten(2)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_images_and_maps_of_a_batch_do_not_mix():
    frames, values = _smooth_frames(2, 20), torch.rand(2, 3, 20, 20)
    together = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=9.0)
    alone = gaussian_filter(values[1:, 2:], frames[1:], sigma_rgb=15.0, sigma_xy=9.0)
    torch.testing.assert_close(together[1:, 2:], alone, rtol=1e-4, atol=1e-3)


def test_whole_numbered_float_frames_count_as_uint8_ones():
    frames, values = _smooth_frames(1, 12), torch.rand(1, 1, 12, 12)
    for exact in (True, False):
        settings = {"sigma_rgb": 15.0, "sigma_xy": 5.0, "exact": exact}
        assert torch.equal(
            gaussian_filter(values, frames.float(), **settings), gaussian_filter(values, frames, **settings)
        )


def test_filtering_is_float32_inside_autocast():
    frames, values = _smooth_frames(1, 24), torch.rand(1, 1, 24, 24)
    expected = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=10.0), expected)


def test_other_shapes_and_sigmas_are_refused():
    frames, values = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"frames must be \[B, 3, H, W\].*, got \[3, 4, 4\]"):
        gaussian_filter(values, frames[0], sigma_rgb=15.0, sigma_xy=None)
    with pytest.raises(ValueError, match=r"values must be \[1, K, 4, 4\] like frames, got \[1, 1, 4, 3\]"):
        gaussian_filter(values[..., :3], frames, sigma_rgb=15.0, sigma_xy=None)
    for shape in ((1, 3, 2, 4, 4), (1, 3, 4)):
        with pytest.raises(ValueError, match="frames must be"):
            gaussian_filter(torch.zeros(1, 1, *shape[2:]), torch.zeros(shape), sigma_rgb=15.0, sigma_xy=9.0)
    with pytest.raises(ValueError, match=r"sigmas must be above 0, got sigma_rgb 15\.0 and sigma_xy 0\.0"):
        gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=0.0)
    with pytest.raises(ValueError, match=r"tolerance must be 0\.01 to 0\.1, got 0\.5"):
        gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=None, tolerance=0.5)
    with pytest.raises(ValueError, match="sigmas must be above 0"):
        affinity_sum(frames, sigma_rgb=-1.0, sigma_xy=None)


def test_an_image_of_few_levels_takes_a_smaller_grid_and_errs_little_more():
    wide = _smooth_frames(1, 48)
    frames, values = torch.cat([wide, 100 + wide // 4]), _blob(48).expand(2, -1, -1, -1)
    sides = adaptive_bins(histogram(frames), 59, sigma_rgb=15.0, tolerance=0.04, each=True).sides
    assert sides[1] < 0.6 * sides[0]
    fast = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=None)
    exact = gaussian_filter(values, frames, sigma_rgb=15.0, sigma_xy=None, exact=True)
    error = (fast - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.max() < 0.06


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("sigma_xy", [None, 43.0])
def test_the_fast_filter_is_near_the_exact_one_on_real_frames(shared_data, sigma_xy):
    av = pytest.importorskip("av")
    frames = []
    for name in ("animal", "surfer"):
        with av.open(str(sorted((shared_data / "clips" / name).glob("*.mp4"))[0])) as video:
            pixels = torch.from_numpy(next(video.decode(video=0)).to_ndarray(format="rgb24")).permute(2, 0, 1)
        frames.append(torch.nn.functional.interpolate(pixels[None].float(), size=96, mode="area"))
    batch, contrast = torch.cat(frames).round(), _blob(96).expand(2, -1, -1, -1)
    fast = gaussian_filter(contrast, batch, sigma_rgb=15.0, sigma_xy=sigma_xy)
    exact = gaussian_filter(contrast, batch, sigma_rgb=15.0, sigma_xy=sigma_xy, exact=True)
    error = (fast - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    slopes = [((1 - contrast.square()) * filtered).flatten(1) for filtered in (fast, exact)]
    cosine = torch.nn.functional.cosine_similarity(*slopes, dim=1)
    assert error.max() < 0.05
    assert cosine.min() > 0.999


@pytest.mark.gpu
@pytest.mark.parametrize("sigma_xy", [None, 20.0])
def test_the_fast_filter_on_an_accelerator_agrees_with_the_cpu_and_needs_no_host(sigma_xy):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frames, values = _smooth_frames(3, 48), torch.rand(3, 2, 48, 48)
    settings = {"sigma_rgb": 15.0, "sigma_xy": sigma_xy}
    expected, total = gaussian_filter(values, frames, **settings), affinity_sum(frames, **settings)
    on_device = values.cuda(), frames.cuda()
    gaussian_filter(*on_device, **settings), affinity_sum(on_device[1], **settings)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got, got_total = gaussian_filter(*on_device, **settings), affinity_sum(on_device[1], **settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-2, atol=1e-1)
    torch.testing.assert_close(got_total.cpu(), total, rtol=1e-2, atol=1e-1)
