import pytest
import torch

from tcam.supervision.hide_and_seek import HideAndSeek

GREY = (0.5, 0.25, 1.0)


def white(count: int, side: int = 8) -> torch.Tensor:
    return torch.full((count, 3, side, side), 7, dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patches_are_whole_squares_of_the_grid_in_the_colour_given():
    frames = HideAndSeek(patches=(4,))(white(60), seeded(), colour=GREY)
    assert frames.dtype == torch.uint8
    cells = frames.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)  # [N, 3, 2, 2, 16]
    assert torch.equal(cells.amin(dim=4), cells.amax(dim=4))
    hidden = cells[:, 0, :, :, 0] == 128
    assert set(cells[:, 0, :, :, 0].unique().tolist()) == {7, 128}
    for channel, value in enumerate((128, 64, 255)):
        assert set(cells[:, channel, :, :, 0][hidden].unique().tolist()) == {value}
    whole = int((~hidden).flatten(1).all(dim=1).sum())
    assert 60 / 2 - 12 < whole < 60 / 2 + 16  # half stay whole by the draw of the side, some more by luck
    assert 0.35 < float(hidden[hidden.flatten(1).any(dim=1)].float().mean()) < 0.65


def test_with_certainty_every_patch_of_a_frame_that_is_not_left_whole_is_hidden():
    hide = HideAndSeek(patches=(3, 5), hide=1.0)
    frames = hide(white(30), seeded(), colour=(0.0, 0.0, 0.0))
    assert {tuple(frame.unique().tolist()) for frame in frames} == {(0,), (7,)}


def test_the_side_of_the_patches_is_drawn_for_each_frame():
    frames = HideAndSeek(patches=(2, 4))(white(40), seeded(), colour=(0.0, 0.0, 0.0))[:, 0]
    patches = frames.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)  # [N, 2, 2, 16]
    fine = (patches.amin(dim=3) != patches.amax(dim=3)).flatten(1).any(dim=1)
    assert 5 < int(fine.sum()) < 25


def test_shares_of_a_batch_are_hidden_as_the_whole():
    frames, hide = white(5), HideAndSeek(patches=(2, 4))
    whole = hide(frames, seeded(), colour=GREY)
    parts = [hide(frames[first:stop], seeded(), colour=GREY, first=first, total=5) for first, stop in ((0, 2), (2, 5))]
    assert torch.equal(torch.cat(parts), whole)


def test_every_share_leaves_the_generator_alike():
    left = []
    for first, stop in ((0, 2), (2, 5)):
        generator = seeded()
        HideAndSeek()(white(stop - first), generator, colour=GREY, first=first, total=5)
        left.append(generator.get_state())
    assert torch.equal(*left)


def test_frames_given_are_left_as_they_are():
    frames = white(4)
    HideAndSeek(patches=(2,), hide=1.0)(frames, seeded(), colour=(0.0, 0.0, 0.0))
    assert torch.equal(frames, white(4))


def test_what_makes_no_sense_is_refused():
    for settings in ({"patches": ()}, {"patches": (0,)}, {"hide": 1.5}):
        with pytest.raises(ValueError, match=r"patches must be 1 or more and hide in 0\.\.1"):
            HideAndSeek(**settings)
    with pytest.raises(ValueError, match=r"frames must be uint8 \[N, 3, H, W\], got torch.float32 \[1, 3, 8, 8\]"):
        HideAndSeek()(white(1).float(), seeded(), colour=GREY)
