import math
import pickle
import sys

import pytest
import torch

from tcam.boxes.refine import MeanField
from tcam.errors import MissingPartError


@pytest.fixture
def mean_field():
    """Give the class, where pydensecrf is installed."""
    pytest.importorskip("pydensecrf")
    return MeanField


def test_without_pydensecrf_the_way_out_is_said_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(MissingPartError, match=r"refining maps .* needs pydensecrf .*: pip install 'tcam\[crf\]'"):
        MeanField()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "threshold must be 0 to 1, got 1.5"),
        ({"iterations": 0}, "iterations must be 1 or more, got 0"),
        ({"colour_xy": 0}, "reaches must be above 0"),
        ({"smooth_weight": -1}, "weights 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MeanField(**settings)


def blurred_square():
    """A red square on grey, and a round map that knows where it is, roughly."""
    frames = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    frames[0, :, 16:48, 20:52] = torch.tensor([200, 40, 40], dtype=torch.uint8)[:, None, None]
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return torch.exp(-((y - 32) ** 2 + (x - 36) ** 2) / (2 * 15**2))[None], frames


def test_a_round_map_takes_the_shape_of_the_object(mean_field):
    maps, frames = blurred_square()
    refined = mean_field()(maps, frames)
    true = torch.zeros(64, 64, dtype=torch.bool)
    true[16:48, 20:52] = True
    before, after = ((found[0] > 0.5) for found in (maps, refined))
    assert (before & true).sum() / (before | true).sum() < 0.9
    assert torch.equal(after, true)
    assert refined.dtype == torch.float32
    assert 0 <= refined.min() <= refined.max() <= 1


def test_maps_are_read_against_their_own_threshold(mean_field):
    maps, frames = blurred_square()
    true = mean_field()(maps, frames) > 0.5
    high = 0.9 + 0.099 * maps  # the same hill, and even its foot is above one half
    assert (mean_field()(high, frames) > 0.5).all()
    assert torch.equal(mean_field(threshold=0.9 + 0.099 * 0.5)(high, frames) > 0.5, true)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.0])
def test_a_threshold_is_moved_to_one_half(mean_field, threshold):
    maps = torch.tensor([[[0.0, 0.1, 0.2, 0.6, 1.0]]])
    field = mean_field(threshold=threshold, colour_weight=0.0, smooth_weight=0.0)
    share = field(maps, torch.zeros(1, 3, 1, 5, dtype=torch.uint8))[0, 0]
    assert torch.equal(share > 0.501, maps[0, 0] > max(threshold, 1e-4) + 1e-6)
    assert share.isfinite().all()


def test_without_neighbours_the_map_itself_comes_back(mean_field):
    maps, frames = blurred_square()
    refined = mean_field(colour_weight=0.0, smooth_weight=0.0)(maps, frames)
    torch.testing.assert_close(refined, maps.clamp(1e-4, 1 - 1e-4), rtol=1e-4, atol=1e-5)


def test_two_alike_pixels_agree_more_by_hand(mean_field):
    """One step of the mean field: the other pixel's share adds ``w q`` to each side of the logit."""
    maps, frames = torch.tensor([[[0.9, 0.4]]]), torch.zeros(1, 3, 1, 2, dtype=torch.uint8)
    field = mean_field(iterations=1, colour_weight=0.0, smooth_weight=1.0, smooth_xy=1e6)
    share = field(maps, frames)[0, 0]
    # Symmetric normalisation: a kernel of 1 everywhere is divided by 2, and holds the pixel itself.
    pull = (0.9 + 0.4) - (0.1 + 0.6)
    expected = [1 / (1 + math.exp(-(math.log(p / (1 - p)) + pull / 2))) for p in (0.9, 0.4)]
    assert share.tolist() == pytest.approx(expected, abs=0.05)
    assert share[1] > 0.4


def test_frames_are_refined_alone_and_no_frame_gives_none(mean_field):
    maps, frames = blurred_square()
    both = mean_field()(torch.cat([maps, 1 - maps]), torch.cat([frames, frames.flip(3)]))
    assert torch.equal(both[:1], mean_field()(maps, frames))
    assert mean_field()(maps[:0], frames[:0]).shape == (0, 64, 64)
    assert pickle.loads(pickle.dumps(mean_field(iterations=3))) == mean_field(iterations=3)


def test_other_shapes_are_refused(mean_field):
    maps, frames = blurred_square()
    with pytest.raises(ValueError, match=r"expected maps \[N, H, W\] and uint8 frames .*, got \[1, 64, 32\] and"):
        mean_field()(maps[:, :, :32], frames)
    with pytest.raises(ValueError, match="expected maps"):
        mean_field()(maps, frames.float())
