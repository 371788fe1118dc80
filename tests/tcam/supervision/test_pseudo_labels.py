import pytest
import torch

from tcam.supervision.pseudo_labels import (
    SeedSampler,
    bounding_mask,
    densest_component,
    largest_component,
    otsu_region,
    otsu_threshold,
)
from tcam.types import IGNORE


def p_value(*counts, **options) -> float:
    from scipy import stats  # a second, in every process that collects the tests

    return stats.chisquare(*counts, **options).pvalue


def _otsu_by_definition(levels):
    """Try every level: the variance between pixels up to it and above it; the first of the best."""
    best, best_level = -1.0, 0
    for level in range(255):
        low, high = levels[levels <= level].double(), levels[levels > level].double()
        if len(low) and len(high):
            between = len(low) * len(high) * float(low.mean() - high.mean()) ** 2
            if between > best * (1 + 1e-12):
                best, best_level = between, level
    return best_level


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _sampler(**changes):
    settings = {
        "foreground": 5,
        "background": 5,
        "foreground_fraction": 0.5,
        "background_fraction": 0.25,
        "kernel": 1,
        "region": "frame",
    }
    return SeedSampler(**{**settings, **changes})


def test_otsu_parts_two_levels_at_the_lower_one():
    maps = torch.tensor([[[0.0, 0.0, 1.0, 1.0]], [[0.2, 0.2, 0.2, 0.8]]])
    assert otsu_threshold(maps).tolist() == [0.0, 51.0]


def test_otsu_equals_its_definition_on_many_maps_at_once():
    generator = _generator()
    maps = torch.rand(6, 9, 11, generator=generator) ** torch.tensor([0.3, 0.7, 1, 2, 4, 8]).view(6, 1, 1)
    expected = [_otsu_by_definition((255 * m).floor().flatten()) for m in maps]
    assert otsu_threshold(maps).tolist() == expected


def test_a_constant_map_has_threshold_0_and_is_all_region():
    maps = torch.full((1, 2, 2), 0.7)
    assert otsu_threshold(maps).tolist() == [0.0]
    assert otsu_region(maps).all()


def test_otsus_region_holds_the_pixels_at_or_above_the_level():
    maps = torch.tensor([[[0.0, 0.2, 0.21, 1.0]]])
    assert otsu_threshold(maps).item() == 53
    assert otsu_region(maps).tolist() == [[[False, False, True, True]]]  # 255 * 0.21 = 53.55


def _blobs():
    maps = torch.zeros(1, 6, 6)
    maps[0, 0, 0:2] = 1.0  # two bright pixels
    maps[0, 3:6, 3:6] = 0.6  # nine pale ones
    maps[0, 2, 2] = 0.6  # touches them by a corner only
    return maps


def test_the_largest_component_is_four_connected():
    kept = largest_component(_blobs() > 0)
    assert int(kept.sum()) == 9
    assert kept[0, 3:6, 3:6].all()


def test_the_densest_component_wins_unless_it_is_tiny():
    maps = _blobs()
    dense = densest_component(maps > 0, maps)  # 2 of 36 pixels are above 5 %
    assert dense.nonzero()[:, 1:].tolist() == [[0, 0], [0, 1]]
    assert int(densest_component(maps > 0, maps, smallest_share=0.1).sum()) == 9


def test_no_region_has_no_component():
    empty = torch.zeros(2, 3, 3, dtype=torch.bool)
    assert not largest_component(empty).any()
    assert not densest_component(empty, torch.rand(2, 3, 3)).any()
    assert not bounding_mask(empty).any()


def test_a_bounding_mask_fills_the_rectangle_around_a_region():
    region = torch.zeros(2, 4, 5, dtype=torch.bool)
    region[0, 1, 1] = region[0, 3, 2] = True
    region[1, 0, 4] = True
    mask = bounding_mask(region)
    assert mask[0].nonzero().tolist() == [[r, c] for r in (1, 2, 3) for c in (1, 2)]
    assert mask[1].nonzero().tolist() == [[0, 4]]


def test_seeds_have_the_asked_numbers_and_lie_among_the_strongest_and_weakest():
    cams = torch.rand(4, 10, 10, generator=_generator())
    labels = _sampler()(cams, _generator()).labels
    assert labels.dtype == torch.uint8
    order = cams.flatten(1).argsort(dim=1)
    for image in range(4):
        drawn = labels[image].flatten()
        assert set((drawn == 1).nonzero().flatten().tolist()) <= set(order[image, 50:].tolist())
        assert set((drawn == 0).nonzero().flatten().tolist()) <= set(order[image, :25].tolist())
        assert [(drawn == v).sum().item() for v in (0, 1, IGNORE)] == [5, 5, 90]


def test_a_pool_smaller_than_the_count_is_drawn_whole():
    cams = torch.arange(10.0).view(1, 2, 5) / 9
    labels = _sampler(foreground=99, background=99)(cams, _generator()).labels
    assert labels.flatten().tolist() == [0, 0, *[IGNORE] * 3, 1, 1, 1, 1, 1]


def test_each_image_has_its_own_pool():
    cams = torch.linspace(0, 0.1, 16).view(1, 4, 4).flip(1, 2).repeat(2, 1, 1)
    cams[0, 0, :] = torch.tensor([0.9, 0.91, 0.92, 0.93])
    cams[1, :2] = 0.9 + torch.arange(8.0).view(2, 4) / 100
    labels = _sampler(foreground=99, background=1, foreground_fraction=1.0, region="otsu")(cams, _generator()).labels
    assert (labels == 1).sum(dim=(1, 2)).tolist() == otsu_region(cams).sum(dim=(1, 2)).tolist()
    assert (labels == 1)[0, 0].all()
    assert (labels == 1)[1, :2].all()


def test_a_constant_map_gets_no_label_and_does_not_disturb_the_others():
    cams = torch.rand(3, 8, 8, generator=_generator())
    cams[1] = 0.4
    labels = _sampler()(cams, _generator()).labels
    assert (labels != IGNORE).any(dim=2).any(dim=1).tolist() == [True, False, True]


def test_a_fraction_too_small_for_one_pixel_gives_no_seed():
    cams = torch.rand(1, 3, 3, generator=_generator())
    labels = _sampler(foreground_fraction=0.1, background_fraction=0.05)(cams, _generator()).labels
    assert (labels == IGNORE).all()


def test_the_same_generator_state_draws_the_same_and_the_next_draw_differs():
    cams = torch.rand(2, 16, 16, generator=_generator())
    generator = _generator()
    first, second = _sampler()(cams, generator).labels, _sampler()(cams, generator).labels
    assert torch.equal(first, _sampler()(cams, _generator()).labels)
    assert not torch.equal(first, second)


def test_grown_seeds_ignore_what_both_sides_claim():
    cams = torch.tensor([[[1.0, 0.5, 0.4, 0.3, 0.0]]])
    settings = {"foreground": 1, "background": 1, "foreground_fraction": 0.2, "background_fraction": 0.2}
    assert _sampler(kernel=3, **settings)(cams, _generator()).labels.flatten().tolist() == [1, 1, IGNORE, 0, 0]
    assert _sampler(kernel=7, **settings)(cams, _generator()).labels.flatten().tolist() == [1, *[IGNORE] * 3, 0]


def test_a_seed_grows_to_a_square_cut_at_the_border():
    cams = torch.full((1, 6, 7), 0.5)
    cams[0, 0, 0], cams[0, 3, 4] = 0.0, 1.0
    settings = {"foreground": 1, "background": 1, "foreground_fraction": 0.03, "background_fraction": 0.03}
    labels = _sampler(kernel=3, **settings)(cams, _generator()).labels[0]
    assert (labels == 0).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert (labels == 1).nonzero().tolist() == [[r, c] for r in (2, 3, 4) for c in (3, 4, 5)]


def _shaded_blobs():
    """Give the blobs on a floor that falls to the lower left, where the background seed goes."""
    floor = torch.linspace(0.2, 0, 6)[:, None] * torch.linspace(0.5, 1, 6)
    return torch.maximum(_blobs(), floor)


@pytest.mark.parametrize(("region", "pixels"), [("otsu", 12), ("largest", 9), ("high_density", 2)])
def test_foreground_fills_its_region_and_nothing_else(region, pixels):
    maps = _shaded_blobs()
    maps[0, 2, 5] = 0.25  # Otsu's level; the region starts at it
    sampler = _sampler(foreground=99, background=1, background_fraction=0.03, foreground_fraction=1.0, region=region)
    drawn = sampler(maps, _generator()).labels == 1
    if region == "otsu":
        assert torch.equal(drawn, otsu_region(maps))
    assert abs(int(drawn.sum()) - pixels) <= 1


def test_a_box_mask_lets_foreground_fill_the_rectangle():
    maps = _shaded_blobs()
    settings = {"foreground": 99, "background": 1, "foreground_fraction": 1.0, "background_fraction": 0.03}
    boxed = _sampler(**settings, region="otsu", box_mask=True)(maps, _generator()).labels == 1
    assert bounding_mask(otsu_region(maps)).all()
    assert boxed.sum() == 35  # all but the pixel that the background claims too


def _frequencies(cam, draws, **changes):
    labels = _draw_often(_sampler(foreground=1, background=1, **changes), cam, draws)
    return (labels == 1).sum(dim=0), (labels == 0).sum(dim=0)


def _draw_often(sampler, cam, draws, at_once=1000):
    generator = _generator()
    return torch.cat(
        [sampler(cam.expand(at_once, -1, -1), generator).labels.flatten(1) for _ in range(draws // at_once)]
    )


def test_weighted_foreground_is_drawn_in_proportion_to_the_cam():
    cam = torch.tensor([[[0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]]])
    foreground, _ = _frequencies(cam, 20_000, foreground_fraction=0.5, weighted=True)
    assert foreground[:4].sum() == 0
    expected = cam.flatten()[4:] / cam.flatten()[4:].sum() * 20_000
    assert p_value(foreground[4:].numpy(), expected.double().numpy(), sum_check=False) > 0.001


def test_uniform_foreground_and_background_are_drawn_evenly():
    cam = torch.tensor([[[0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]]])
    foreground, background = _frequencies(cam, 20_000, foreground_fraction=0.5, weighted=False)
    assert p_value(foreground[4:].numpy()) > 0.001
    assert p_value(background[:2].numpy()) > 0.001
    assert background[2:].sum() == 0


def test_several_weighted_draws_are_without_replacement_in_proportion():
    cam = torch.tensor([[[0.0, 0.25, 0.5, 1.0]]])
    labels = _draw_often(_sampler(foreground=2, background=1, foreground_fraction=0.75), cam, 20_000)
    drawn = (labels == 1)[:, 1:]
    assert (drawn.sum(dim=1) == 2).all()
    left_out = (~drawn).sum(dim=0)
    # P(left out i) = sum over ordered pairs of the others of p_a p_b / (1 - p_a), p = (1, 2, 4) / 7
    p = [1 / 7, 2 / 7, 4 / 7]
    chances = [
        sum(p[a] * p[b] / (1 - p[a]) for a in range(3) for b in range(3) if len({a, b, i}) == 3) for i in range(3)
    ]
    assert p_value(left_out.numpy(), [20_000 * c for c in chances]) > 0.001


def test_ties_among_the_weakest_are_broken_by_chance_not_by_raster_order():
    cam = torch.zeros(1, 4, 4)
    cam[0, 3, 3] = 1.0
    _, background = _frequencies(cam, 15_000)
    assert background[15] == 0
    assert p_value(background[:15].numpy()) > 0.001


@pytest.mark.slow
def test_ties_at_the_edge_share_the_room_that_stronger_pixels_leave():
    # Background pool of 400: the 300 zeros, and a third of the 300 at the edge.
    cam = torch.tensor([0.0] * 300 + [0.5] * 300 + [0.9] * 199 + [1.0]).view(1, 20, 40)
    _, background = _frequencies(cam, 16_000, background_fraction=0.5, foreground_fraction=0.2)
    assert background[600:].sum() == 0
    groups = [int(background[:300].sum()), int(background[300:600].sum())]
    assert p_value(groups, [12_000, 4000]) > 0.001
    assert p_value(background[300:600].numpy()) > 0.001


def test_missing_values_count_as_zero():
    cams = torch.rand(1, 5, 5, generator=_generator())
    cams[0, 2, 2] = torch.nan
    labels = _sampler(foreground=99, foreground_fraction=0.9)(cams, _generator()).labels
    assert labels[0, 2, 2] != 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"foreground": 0}, "seed counts must be 1 or more, got 0 and 5"),
        ({"background_fraction": 1.5}, r"seed fractions must lie in \(0, 1\]"),
        ({"kernel": 4}, "kernel must be odd and 1 or more, got 4"),
        ({"region": "roi_all"}, "region must be one of otsu, largest, high_density, frame, got 'roi_all'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _sampler(**changes)


def test_maps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"cams must be \[N, H, W\], got \[1, 2, 3, 3\]"):
        _sampler()(torch.zeros(1, 2, 3, 3), _generator())
    with pytest.raises(ValueError, match=r"maps must be \[1, 3, 3\] like regions"):
        densest_component(torch.zeros(1, 3, 3, dtype=torch.bool), torch.zeros(1, 2, 2))


@pytest.mark.gpu
def test_seeds_on_an_accelerator_need_no_host():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cams = torch.rand(4, 32, 32, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    sampler = _sampler(region="otsu", kernel=3)
    sampler(cams, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        labels = sampler(cams, generator).labels
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert {0, 1, IGNORE} == set(labels.unique().tolist())
