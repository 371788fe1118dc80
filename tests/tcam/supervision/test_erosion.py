import pytest
import torch

from tcam.supervision.pseudo_labels import SeedSampler, erode_region


def region(*rows: str) -> torch.Tensor:
    return torch.tensor([[cell == "#" for cell in row] for row in rows])[None]


def test_a_region_loses_its_rim_but_not_where_the_frame_cuts_it():
    before = region("####..", "####..", "####..", "......")
    after = region("###...", "###...", "......", "......")
    assert torch.equal(erode_region(before, 3), after)


def test_a_region_too_thin_for_the_square_stays_and_others_do_not_change_that():
    thin, thick = region(".....", "#####", "....."), torch.ones(1, 3, 5, dtype=torch.bool)
    both = torch.cat([thin, thick, torch.zeros_like(thick)])
    assert torch.equal(erode_region(both, 3), both)
    assert torch.equal(erode_region(both, 1), both)


@pytest.mark.parametrize("side", [0, 2])
def test_other_squares_and_shapes_are_refused(side):
    with pytest.raises(ValueError, match=f"side must be odd and 1 or more, got {side}"):
        erode_region(torch.ones(1, 3, 3, dtype=torch.bool), side)
    with pytest.raises(ValueError, match=f"erosion must be odd and 1 or more, got {side}"):
        SeedSampler(1, 1, 1.0, 0.1, erosion=side)
    with pytest.raises(ValueError, match=r"regions must be \[N, H, W\]"):
        erode_region(torch.ones(3, 3, dtype=torch.bool), 3)


def test_foreground_is_drawn_alike_from_all_of_the_eroded_region():
    cam = torch.linspace(0, 0.1, 256).view(1, 16, 16).clone()
    cam[0, 4:12, 4:12] = 0.6
    cam[0, 5, 5] = 1.0
    sampler = SeedSampler(1, 1, 1.0, 0.1, kernel=1, weighted=False, erosion=5)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.zeros(16, 16)
    for _ in range(400):
        drawn += sampler(cam, generator).labels[0] == 1
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[6:10, 6:10] = True
    assert drawn[~inside].sum() == 0
    assert drawn.sum() == 400
    expected = 400 / 16
    assert ((drawn[inside] - expected).square() / expected).sum() < 37.7  # chi-square, 15 degrees, 0.1 %
