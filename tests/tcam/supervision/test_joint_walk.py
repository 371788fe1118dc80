import itertools
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tcam.supervision.joint_walk import (
    JointWalk,
    affinity_features,
    principal_components,
    stretch,
)


def halves(frames: int = 2, side: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames whose left half looks one way and whose right half another; a map with one pixel of the left."""
    features = torch.zeros(frames, 3, side, side)
    features[:, 0, :, : side // 2] = 1
    features[:, 1, :, side // 2 :] = 1
    maps = torch.zeros(frames, side, side)
    maps[0, 1, 0] = 1
    return maps, features


def test_a_map_spreads_to_all_that_looks_alike_in_every_frame_and_no_further():
    maps, features = halves()
    walked = JointWalk(sigma=0.1, momentum=1.0, steps=20)(maps, features)
    expected = torch.zeros(2, 4, 4)
    expected[:, :, :2] = 1
    torch.testing.assert_close(walked, expected, atol=1e-3, rtol=0)


def test_one_step_is_the_mean_of_what_looks_alike_by_hand():
    maps, features = halves(frames=1, side=2)  # two positions look alike: each gets the mean of both
    maps = torch.tensor([[[1.0, 0.0], [0.0, 0.25]]])
    walked = JointWalk(sigma=0.05, momentum=0.5, steps=1)(maps, features)
    left, right = (1 + 0.5) / 2, (0 + 0.125) / 2  # (own + mean) / 2, above and below
    raw = torch.tensor([[[left, right], [(0 + 0.5) / 2, (0.25 + 0.125) / 2]]])
    torch.testing.assert_close(walked, stretch(raw), atol=1e-4, rtol=0)


def test_without_momentum_or_steps_maps_are_only_stretched():
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    features = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    for walk in (JointWalk(momentum=0.0), JointWalk(steps=0)):
        torch.testing.assert_close(walk(maps, features), stretch(maps))


def test_maps_come_at_the_resolution_of_the_features_and_in_range():
    generator = torch.Generator().manual_seed(0)
    walked = JointWalk(window=4)(
        torch.rand(9, 7, 7, generator=generator), torch.rand(9, 16, 14, 14, generator=generator)
    )
    assert walked.shape == (9, 14, 14)
    assert walked.dtype == torch.float32
    torch.testing.assert_close(walked.amin(dim=(1, 2)), torch.zeros(9))
    torch.testing.assert_close(walked.amax(dim=(1, 2)), torch.ones(9))


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_what_tells_nothing_stays_empty(frames):
    constant = JointWalk()(torch.zeros(frames, 4, 4), torch.rand(frames, 3, 4, 4))
    assert not constant.any()
    alike = JointWalk()(torch.rand(frames, 4, 4), torch.ones(frames, 3, 4, 4))
    assert alike.isfinite().all()


def test_the_walk_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    maps, features = torch.rand(3, 5, 5, generator=generator), torch.rand(3, 16, 5, 5, generator=generator)
    reduced = principal_components(features, 8).double() / 0.4
    kernel = torch.exp(-torch.cdist(reduced, reduced).square() / 2)
    kernel /= kernel.sum(dim=1, keepdim=True)
    start = stretch(maps).double().flatten()
    state = start
    for _ in range(30):
        state = 0.05 * start + 0.95 * kernel @ state
    torch.testing.assert_close(JointWalk()(maps, features).double(), stretch(state.view(3, 5, 5)), atol=1e-4, rtol=0)


def test_a_finer_map_is_averaged():
    maps = torch.zeros(1, 8, 8)
    maps[0, 0, 0] = 1  # bilinear sampling would pass it over
    maps[0, 4:, 4:] = 1
    walked = JointWalk(momentum=0.0)(maps, torch.rand(1, 3, 2, 2))
    torch.testing.assert_close(walked, torch.tensor([[[1 / 16, 0.0], [0.0, 1.0]]]))


def test_frames_far_away_take_no_part():
    generator = torch.Generator().manual_seed(0)
    maps, features = torch.rand(12, 4, 4, generator=generator), torch.rand(12, 8, 4, 4, generator=generator)
    walk = JointWalk(window=4, stride=1)
    changed = maps.clone()
    changed[8:] = 0.5
    torch.testing.assert_close(walk(maps, features)[:4], walk(changed, features)[:4])


@given(frames=st.integers(1, 200), window=st.integers(1, 20), stride=st.integers(1, 4))
def test_blocks_cover_every_frame_and_grow_no_longer_with_the_shot(frames, window, stride):
    cut = JointWalk(window=window, stride=stride).blocks(frames)
    assert {frame for first, stop in cut for frame in range(first, stop)} == set(range(frames))
    assert max(stop - first for first, stop in cut) <= window * stride
    assert cut == sorted(set(cut))
    assert all(later[0] < before[1] for before, later in itertools.pairwise(cut)) or window == 1


def test_the_walk_in_order_holds_the_frames_of_a_block():
    """However long the shot: what comes out is at most a block behind what went in."""
    taken, walk = 0, JointWalk(window=3, stride=2, steps=2)

    def frames() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        nonlocal taken
        for taken in range(1, 201):  # noqa: B007
            yield torch.rand(3, 3), torch.rand(4, 3, 3)

    behind = [taken - i for i, _ in enumerate(walk.walk_in_order(frames()))]
    assert len(behind) == 200
    assert max(behind) == 6


@given(frames=st.integers(1, 90), window=st.integers(1, 9), stride=st.integers(1, 4), data=st.data())
def test_a_part_with_its_context_has_the_blocks_of_the_whole_shot(frames, window, stride, data):
    start = data.draw(st.integers(0, frames - 1))
    part = range(start, data.draw(st.integers(start + 1, frames)))
    walk = JointWalk(window=window, stride=stride)
    context = walk.context(part, range(frames))
    own = {(first + context.start, stop + context.start) for first, stop in walk.blocks(len(context))}
    near = {(a, b) for a, b in walk.blocks(frames) if a < part.stop and b > part.start}
    assert near == {(a, b) for a, b in own if a < part.stop and b > part.start}
    assert walk.stride_of(len(context)) == walk.stride_of(frames)
    assert len(context) < len(part) + 2.5 * window * stride


@given(frames=st.integers(1, 90), window=st.integers(1, 9), stride=st.integers(1, 4), data=st.data())
def test_the_rest_of_a_shot_of_unknown_end_has_the_blocks_of_the_whole_shot(frames, window, stride, data):
    first = data.draw(st.integers(0, frames - 1))
    walk = JointWalk(window=window, stride=stride)
    start = walk.context_start(first)
    own = {(a + start, b + start) for a, b in walk.blocks(frames - start)}
    assert {(a, b) for a, b in own if b > first} == {(a, b) for a, b in walk.blocks(frames) if b > first}
    assert walk.stride_of(frames - start) == walk.stride_of(frames)


@pytest.mark.parametrize("frames", [1, 5, 8, 9, 11, 15, 30])
def test_every_part_walks_to_the_same_bits_as_the_whole_shot(frames):
    generator = torch.Generator().manual_seed(0)
    maps, features = torch.rand(frames, 5, 5, generator=generator), torch.rand(frames, 8, 5, 5, generator=generator)
    walk = JointWalk(window=4, stride=2, steps=5)
    whole = walk(maps, features)
    for start in range(0, frames, 3):
        part = range(start, min(start + 3, frames))
        context = walk.context(part, range(frames))
        walked = walk(maps[context.start : context.stop], features[context.start : context.stop])
        assert torch.equal(walked[part.start - context.start : part.stop - context.start], whole[start : part.stop])


@pytest.mark.parametrize(("frames", "stride"), [(1, 1), (8, 1), (15, 1), (16, 2), (23, 2), (24, 3), (1000, 3)])
def test_a_short_shot_has_a_smaller_stride(frames, stride):
    assert JointWalk(window=8, stride=3).stride_of(frames) == stride


def test_frames_a_stride_apart_walk_together():
    maps, features = halves(frames=6)  # only frame 0 has a map
    walked = JointWalk(window=2, stride=3, sigma=0.1, momentum=1.0, steps=20)(maps, features)
    assert [bool(frame.any()) for frame in walked] == [True, False, False, True, False, False]


@pytest.mark.parametrize(
    ("sides", "chosen"), [([112, 56, 28, 14, 7], 14), ([56, 28, 28], 14), ([8, 4], 8), ([28, 16, 7], 14)]
)
def test_features_are_those_of_a_sixteenth_of_the_frame(sides, chosen):
    levels = [torch.rand(2, 4, side, side) for side in sides]
    assert affinity_features(levels, (224, 224)).shape == (2, 4, chosen, chosen)


def test_components_are_at_most_the_channels_and_have_unit_spread():
    reduced = principal_components(torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)), 8)
    assert reduced.shape == (50, 3)
    torch.testing.assert_close(reduced.std(dim=0, unbiased=False).max(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "sigma above 0"),
        ({"momentum": 1.5}, "momentum in 0..1"),
        ({"window": 0}, "window and stride must be 1"),
        ({"stride": 0}, "window and stride must be 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        JointWalk(**settings)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \[2, 4, 4\] and \[3, 5, 4, 4\]"):
        JointWalk()(torch.rand(2, 4, 4), torch.rand(3, 5, 4, 4))


def test_frames_that_have_walked_are_let_go():
    """However long the shot: features of two blocks at most are alive."""
    walk, alive, most = JointWalk(window=3, stride=2, steps=1), 0, 0

    def let_go() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        nonlocal alive, most
        for _ in range(600):
            features = torch.rand(2, 2, 2)
            weakref.finalize(features, let_go)
            alive, most = alive + 1, max(most, alive + 1)
            yield torch.rand(2, 2), features

    assert sum(1 for _ in walk.walk_in_order(frames())) == 600
    assert most <= 2 * 6
