import math

import pytest
import torch

from tcam.supervision.cutmix import CutMix, MixedFrames, window


def numbered(count: int, side: int = 8) -> torch.Tensor:
    """Frames whose every pixel is their number."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("own_share", "centre", "rows", "columns"),
    [
        (0.75, (0.5, 0.5), (3, 7), (5, 15)),  # 5 and 10 long, less what halves leave
        (0.75, (0.0, 0.99), (0, 2), (14, 20)),  # cut by the frame
        (0.0, (0.5, 0.5), (0, 10), (0, 20)),
        (1.0, (0.5, 0.5), (5, 5), (10, 10)),  # nothing
    ],
)
def test_windows_by_hand(own_share, centre, rows, columns):
    found = window(own_share, centre, (10, 20))
    assert [(part.start, part.stop) for part in found] == [rows, columns]


def test_the_loss_weighs_both_tags_by_area():
    # Class 0 is certain by half: -log softmax is log(1 + e^-1) for 0 and log(1 + e) for 1.
    mixed = MixedFrames(numbered(1), torch.tensor([0]), torch.tensor([1]), 0.75)
    expected = 0.75 * math.log(1 + math.exp(-1)) + 0.25 * math.log(1 + math.e)
    assert float(mixed.cross_entropy(torch.tensor([[1.0, 0.0]]))) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_the_share_counts_the_pixels_that_are_really_there(seed):
    labels = torch.arange(5) + 10
    mixed = CutMix()(numbered(5), labels, seeded(seed))
    assert torch.equal(mixed.labels, labels)
    assert sorted(mixed.window_labels.tolist()) == labels.tolist()  # the batch in another order
    for number, frame in enumerate(mixed.frames):
        other = int(mixed.window_labels[number]) - 10
        assert set(frame.unique().tolist()) <= {number, other}
        if other != number:
            assert float((frame == number).float().mean()) == pytest.approx(mixed.own_share)


def test_the_share_varies_from_batch_to_batch_over_its_whole_range():
    shares = [CutMix()(numbered(2, 32), torch.zeros(2), seeded(seed)).own_share for seed in range(60)]
    assert min(shares) < 0.3
    assert max(shares) > 0.95


def test_batches_are_left_alone_as_often_as_asked_for():
    frames = numbered(4)
    alone = [torch.equal(CutMix(0.5)(frames, torch.zeros(4), seeded(seed)).frames, frames) for seed in range(200)]
    assert 80 < sum(alone) < 160  # some windows are empty, or show the frame itself
    untouched = CutMix(0.0)(frames, torch.arange(4), seeded(0))
    assert torch.equal(untouched.frames, frames)
    assert untouched.own_share == 1.0


def test_shares_of_a_batch_take_one_window_and_frames_of_their_own_and_draw_alike():
    frames, labels, found, left = numbered(5), torch.arange(5), [], []
    for first, stop in ((0, 2), (2, 5)):
        generator = seeded(4)
        found.append(CutMix()(frames[first:stop], labels[first:stop], generator, first=first, total=5))
        left.append(generator.get_state())
        assert sorted(found[-1].window_labels.tolist()) == list(range(first, stop))
    assert found[0].own_share == found[1].own_share < 1
    assert torch.equal(*left)


def test_a_share_of_one_frame_is_not_changed():
    assert torch.equal(CutMix()(numbered(1), torch.tensor([0]), seeded(0)).frames, numbered(1))


def test_frames_given_are_left_as_they_are():
    frames = numbered(4)
    CutMix()(frames, torch.arange(4), seeded(1))
    assert torch.equal(frames, numbered(4))


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"labels \[N\], got torch.uint8 \[2, 3, 8, 8\] and \[3\]"):
        CutMix()(numbered(2), torch.zeros(3), seeded(0))
