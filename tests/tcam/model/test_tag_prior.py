"""The shares of ImageNet classes: by hand, as in the prototype, and where there is nothing to go by."""

import pytest
import torch

from tcam.model.cam.inputs import from_head, normalize_cam
from tcam.model.cam.methods import make_cam
from tcam.model.heads.pooling import Wgap
from tcam.model.tag_prior import SMOOTHING, TagPrior, ratio_of


def prior_of(weight, bias, per_tag) -> TagPrior:
    weight, per_tag = torch.as_tensor(weight), torch.as_tensor(per_tag)
    prior = TagPrior(weight.shape[1], len(per_tag), known=len(weight))
    prior.set_classifier(weight, torch.as_tensor(bias))
    prior.set_ratio(per_tag)
    return prior


def test_shares_of_two_classes_by_hand():
    # One channel whose mean is 1: logits log 3 and 0, so p(k | frame) = 3/4 and 1/4. p(k) = 0.5 and 0.5.
    prior = prior_of([[1.0], [0.0]], [torch.tensor(3.0).log() - 1, 0.0], [[0.9, 0.1], [0.1, 0.9]])
    features = torch.tensor([[[[0.5, 1.5]]]]).repeat(2, 1, 1, 1)
    torch.testing.assert_close(prior.probabilities(features), torch.tensor([[0.75, 0.25]] * 2))
    # 3/4 * 9 to 1/4 * 1 with tag 0, 3/4 * 1 to 1/4 * 9 with tag 1
    expected = torch.tensor([[27 / 28, 1 / 28], [1 / 4, 3 / 4]])
    torch.testing.assert_close(prior.class_shares(features, torch.tensor([0, 1])), expected)
    torch.testing.assert_close(prior.channel_weights(features, torch.tensor([0, 1])), expected[:, :1])


def test_maps_are_those_of_the_prototype():
    generator = torch.Generator().manual_seed(0)
    top = torch.rand(6, 16, 5, 4, generator=generator)
    weight, bias = torch.randn(40, 16, generator=generator), torch.randn(40, generator=generator)
    tag, per_tag = torch.tensor([0, 1, 2, 2, 1, 0]), torch.rand(3, 40, generator=generator).softmax(1)
    probable = torch.nn.functional.linear(top.mean((2, 3)), weight, bias).softmax(1)
    shares = probable * (per_tag / (per_tag.mean(0) + 1e-4))[tag]
    maps = torch.einsum("nc,nchw->nhw", (shares / shares.sum(1, keepdim=True)) @ weight, top).relu()
    flat = maps.flatten(1) - maps.flatten(1).min(1, keepdim=True).values
    expected = (flat / flat.max(1, keepdim=True).values.clamp(min=1e-6)).view(maps.shape)
    inputs = from_head(top, tag, Wgap(16, 3), prior=prior_of(weight, bias, per_tag))
    torch.testing.assert_close(normalize_cam(make_cam("prior", inputs)), expected)


def test_a_tag_without_training_videos_has_ratio_1_and_does_not_change_the_others():
    per_tag = torch.tensor([[0.6, 0.4], [0.2, 0.8]])
    ratio = ratio_of(torch.cat([per_tag, torch.zeros(1, 2)]))
    torch.testing.assert_close(ratio[:2], per_tag / (torch.tensor([0.4, 0.6]) + SMOOTHING))
    assert ratio[2].tolist() == [1.0, 1.0]
    assert ratio_of(torch.zeros(2, 3)).tolist() == [[1.0] * 3] * 2


def test_where_no_class_of_the_frame_goes_with_the_tag_the_frame_alone_counts():
    # The frame shows class 0 with certainty (in float32), and the tag's videos never did.
    prior = prior_of([[200.0], [0.0]], [0.0, 0.0], [[0.0, 1.0], [1.0, 0.0]])
    features = torch.ones(1, 1, 2, 2)
    assert prior.probabilities(features).tolist() == [[1.0, 0.0]]
    assert prior.class_shares(features, torch.tensor([0])).tolist() == [[1.0, 0.0]]


def test_a_tag_that_says_nothing_of_the_classes_leaves_the_frames_own_probabilities():
    generator = torch.Generator().manual_seed(1)
    even = torch.full((2, 8), 1 / 8)
    prior = prior_of(torch.randn(8, 4, generator=generator), torch.zeros(8), even)
    features = torch.rand(3, 4, 3, 3, generator=generator)
    shares = prior.class_shares(features, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(shares, prior.probabilities(features))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_hundred_tags_of_one_video_each_give_finite_maps(dtype):
    generator = torch.Generator().manual_seed(2)
    per_tag = (30 * torch.randn(300, 1000, generator=generator)).softmax(1)  # hardly any class in common
    prior = prior_of(torch.randn(1000, 8, generator=generator), torch.zeros(1000), per_tag)
    features = 20 * torch.rand(300, 8, 3, 3, generator=generator, dtype=dtype)
    labels = torch.arange(300)
    shares = prior.class_shares(features, labels)
    assert shares.isfinite().all()
    torch.testing.assert_close(shares.sum(1), torch.ones(300, dtype=dtype))
    maps = make_cam("prior", from_head(features, labels, Wgap(8, 300).to(dtype), prior=prior))
    assert maps.dtype == dtype
    assert maps.isfinite().all()


def test_half_precision_weights_are_kept_as_float32_and_nothing_is_trained():
    prior = TagPrior(3, 2, known=4)
    prior.set_classifier(torch.full((4, 3), 0.1, dtype=torch.float16), torch.zeros(4, dtype=torch.float16))
    assert prior.weight.dtype == torch.float32
    assert prior.weight.unique().tolist() == pytest.approx([0.1], rel=1e-3)
    assert list(prior.parameters()) == []
    assert set(prior.state_dict()) == {"weight", "bias", "ratio"}
