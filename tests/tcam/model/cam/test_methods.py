"""Every CAM method on cases worked out by hand, its closed form against autograd, and what all have in common."""

import math

import pytest
import torch
from torch import nn

from tcam.model.cam.ablation_cam import AblationCam
from tcam.model.cam.inputs import CamInputs, from_head, normalize_cam
from tcam.model.cam.methods import CAM_METHODS, make_cam
from tcam.model.heads.pooling import POOLINGS, Wgap
from tcam.model.tag_prior import TagPrior

GRADIENT = ("gradcam", "gradcam++", "smoothgradcam++", "xgradcam", "layercam")
CLOSED = [name for name, method in CAM_METHODS.items() if method.closed is not None]


class Twice(nn.Module):
    """What comes before the layer: channel 0 is the red of the image, channel 1 twice the green."""

    def forward(self, images):
        return torch.stack([images[:, 0], 2 * images[:, 1]], dim=1)


def head_of(weight, bias=(0.0, 0.0)):
    """Two channels, two classes."""
    head = Wgap(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight))
        head.linear.bias.copy_(torch.tensor(bias))
    return head.requires_grad_(False)


def case():
    """4 x 4 features: channel 0 is 4 in the upper left corner, channel 1 is 1 in the last row; the class is 0."""
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, 0, 0] = 4.0
    features[0, 1, 3] = 1.0
    return features


def map_of(corner: float, row: float) -> torch.Tensor:
    found = torch.zeros(1, 4, 4)
    found[0, 0, 0], found[0, 3] = corner, row
    return found


def positive_square(features):
    """A head that is not linear: logits mean(A_0)^2 + mean(A_1), and 0."""
    means = features.mean(dim=(2, 3))
    return torch.stack([means[:, 0].square() + means[:, 1], 0 * means[:, 0]], dim=1)


def inputs_through(score, features, **more):
    return CamInputs(features, torch.zeros(len(features), dtype=torch.int64), score, **more)


def image_inputs(weight, **more):
    """Images whose features are the case's, seen by ``Twice`` and a linear head."""
    images = torch.zeros(1, 3, 4, 4)
    images[:, 0], images[:, 1] = case()[:, 0], case()[:, 1] / 2
    head = head_of(weight)
    return CamInputs(Twice()(images), torch.tensor([0]), head, None, lambda: images, Twice(), **more)


def random_inputs(head, *, count=3, channels=8, seed=0):
    """Random features under a head; images are the features themselves through a 1x1 convolution."""
    generator = torch.Generator().manual_seed(seed)
    before = nn.Conv2d(3, channels, 1).requires_grad_(False)
    nn.init.normal_(before.weight, generator=generator)
    images = torch.randn(count, 3, 6, 5, generator=generator)

    def look(changed):
        return before(changed).relu()

    labels = torch.arange(count) % 2
    noise = torch.Generator().manual_seed(seed)
    attention = torch.rand(count, 2, 3, 6, 5, generator=generator)
    prior = TagPrior(channels, 2, known=5)
    prior.set_classifier(torch.randn(5, channels, generator=generator), torch.randn(5, generator=generator))
    prior.set_ratio(torch.rand(2, 5, generator=generator))
    return CamInputs(look(images), labels, head, head, lambda: images, look, noise, attention, prior)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    ("method", "corner", "row"),
    [
        # weights 8 and -4: g = 1/2 and -1/4 everywhere, sums of the channels 4 and 4, means 1/4 and 1/4
        ("cam", 32, -4),
        ("gradcam", 4 / 2, 0),
        ("xgradcam", 4 / 2, 0),
        ("gradcam++", 4 * 16 * 0.5 / (2 + 0.5 * 4), 0),
        ("layercam", 4 / 2, 0),
        ("ablationcam", 4 * 8 / 4, 0),
    ],
)
def test_maps_of_a_linear_head_by_hand(method, corner, row, closed):
    head = head_of([[8.0, -4.0], [1.0, 1.0]])
    inputs = from_head(case(), torch.tensor([0]), head)
    if closed or method == "cam":
        found = make_cam(method, inputs)
        found = found / 16 if method == "layercam" else found  # this closed form leaves the factor 1 / hw out
    else:
        found = CAM_METHODS[method].make(inputs)
    torch.testing.assert_close(found, map_of(corner, row))


@pytest.mark.parametrize(
    ("method", "corner", "row"),
    [
        # mean(A_0) = mean(A_1) = 1/4: dY/dA_0 = 2 * 1/4 / 16 = 1/32, dY/dA_1 = 1/16
        ("gradcam", 4 / 32, 1 / 16),
        ("xgradcam", 4 / 32, 1 / 16),
        ("gradcam++", 4 * 16 / 32 / (2 + 4 / 32), 16 / 16 / (2 + 4 / 16)),
        ("layercam", 4 / 32, 1 / 16),
        ("ablationcam", 4 / 16, 1 / 4),
    ],
)
def test_maps_of_another_head_by_hand(method, corner, row):
    torch.testing.assert_close(make_cam(method, inputs_through(positive_square, case())), map_of(corner, row))


def test_layer_cam_weighs_pixel_by_pixel_and_grad_cam_by_the_mean():
    # Only the corner of channel 0 and one pixel of the row count: the gradient differs from pixel to pixel.
    def corner_and_one(features):
        score = features[:, 0, 0, 0] + 2 * features[:, 1, 3, 1]
        return torch.stack([score, 0 * score], dim=1)

    inputs = inputs_through(corner_and_one, case())
    layer = torch.zeros(1, 4, 4)
    layer[0, 0, 0], layer[0, 3, 1] = 4, 2
    torch.testing.assert_close(make_cam("layercam", inputs), layer)
    torch.testing.assert_close(make_cam("gradcam", inputs), map_of(4 / 16, 2 / 16))
    # XGradCAM: sum g A / sum A is 4 / 4 and 2 / 4.
    torch.testing.assert_close(make_cam("xgradcam", inputs), map_of(4, 2 / 4))


def test_smooth_grad_cam_averages_the_derivatives_over_noisy_images():
    inputs = image_inputs([[8.0, -4.0], [1.0, 1.0]])

    def squares(features):  # dY/dA_0 = A_0, dY/dA_1 = 0
        score = features[:, 0].square().sum(dim=(1, 2)) / 2
        return torch.stack([score, 0 * score], dim=1)

    noisy = CamInputs(
        inputs.features, inputs.labels, squares, None, inputs.images, inputs.look, torch.Generator().manual_seed(3)
    )
    noise = 0.3 * torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(3))[:, 0]
    g = inputs.features[0, 0] + noise  # of the four images
    first, second, third = g.mean(dim=0), g.square().mean(dim=0), g.pow(3).mean(dim=0)
    weight = (first.relu() * second / (2 * second + 4 * third)).sum()
    torch.testing.assert_close(make_cam("smoothgradcam++", noisy), (weight * inputs.features[:, 0]).relu())


def test_score_cam_by_hand():
    # Masks are the channels over their maximum: under channel 0 only the corner is left (logit 8 * 4 / 16 = 2), under
    # channel 1 only the row (-4 * 4 / 16 = -1).
    weights = torch.tensor([2.0, -1.0]).softmax(0)
    expected = map_of(4 * float(weights[0]), float(weights[1]))
    torch.testing.assert_close(make_cam("scorecam", image_inputs([[8.0, -4.0], [1.0, 1.0]])), expected)


def test_is_cam_averages_the_scores_of_growing_masks():
    # The network is linear: the mean score is the mean factor times Score-CAM's.
    factor = sum(i * (i + 1) / 20 for i in range(1, 11)) / 10
    assert factor == pytest.approx(2.2)
    weights = torch.tensor([2 * factor, -factor]).softmax(0)
    expected = map_of(4 * float(weights[0]), float(weights[1]))
    torch.testing.assert_close(make_cam("iscam", image_inputs([[8.0, -4.0], [1.0, 1.0]])), expected)


def test_ss_cam_averages_the_scores_of_noisy_masks():
    inputs = image_inputs([[8.0, -4.0], [1.0, 1.0]], generator=torch.Generator().manual_seed(5))
    noise = (2 * torch.randn(35, 4, 4, generator=torch.Generator().manual_seed(5))).mean(dim=0)
    features = case()[0]
    shift = (8 * (noise * features[0]).sum() - 4 * (noise * features[1]).sum()) / 16  # the same under both masks
    assert abs(float(shift)) > 0.01
    weights = torch.tensor([2.0 + shift, -1.0 + shift]).softmax(0)
    torch.testing.assert_close(make_cam("sscam", inputs), map_of(4 * float(weights[0]), float(weights[1])))


def test_a_constant_channel_masks_the_whole_image():
    features, images = torch.ones(1, 2, 4, 4), torch.ones(1, 3, 4, 4)
    features[0, 0, 0, 0] = 3.0
    head = head_of([[16.0, 0.0], [0.0, 0.0]])

    def look(changed):
        return changed[:, :2]

    inputs = CamInputs(features, torch.tensor([0]), head, None, lambda: images, look)
    weights = torch.tensor([1.0, 0.0]).softmax(0)  # under channel 0 one pixel is left, under channel 1 none
    expected = (weights[:, None, None] * features[0]).sum(dim=0)[None]
    torch.testing.assert_close(make_cam("scorecam", inputs), expected)


@pytest.mark.parametrize("pooling", ["wgap", "gap"])
@pytest.mark.parametrize("method", CLOSED)
def test_a_closed_form_equals_the_general_one(method, pooling):
    torch.manual_seed(0)
    inputs = random_inputs(POOLINGS[pooling](8, 3))
    closed, general = make_cam(method, inputs), CAM_METHODS[method].make(inputs)
    assert closed.amax() > 0
    torch.testing.assert_close(normalize_cam(closed), normalize_cam(general), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["cam", *CLOSED])
def test_a_closed_form_asks_the_network_nothing(method):
    def asked(_):
        raise AssertionError("a closed form needs no pass through the network")

    head = head_of([[8.0, -4.0], [1.0, 1.0]])
    inputs = CamInputs(case(), torch.tensor([0]), asked, head, lambda: asked(None), asked)
    assert make_cam(method, inputs).amax() > 0


def test_cam_family_identities_of_a_linear_head():
    torch.manual_seed(0)
    inputs = random_inputs(Wgap(8, 3))
    cam = make_cam("cam", inputs)
    assert cam.amin() < 0
    torch.testing.assert_close(CAM_METHODS["gradcam"].make(inputs) * 30, cam.relu())
    torch.testing.assert_close(CAM_METHODS["xgradcam"].make(inputs), CAM_METHODS["gradcam"].make(inputs))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("method", [name for name in CAM_METHODS if name != "sscam"])
def test_every_method_works_in_inference_mode_and_frame_by_frame(method, pooling):
    torch.manual_seed(0)
    head = POOLINGS[pooling](4, 3)
    with torch.inference_mode():
        inputs = random_inputs(head, channels=4)
        together = make_cam(method, inputs)
        assert together.shape == (3, 6, 5)
        assert not together.requires_grad
        assert together.isfinite().all()
        for i in range(3):
            alone = CamInputs(
                inputs.features[i : i + 1],
                inputs.labels[i : i + 1],
                head,
                head,
                lambda i=i: inputs.images()[i : i + 1],
                inputs.look,
                torch.Generator().manual_seed(0),
                inputs.attention[i : i + 1],
                inputs.prior,
            )
            torch.testing.assert_close(make_cam(method, alone)[0], together[i], rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in head.parameters())


@pytest.mark.parametrize("method", [*GRADIENT, "ablationcam", "scorecam", "iscam"])
def test_a_layer_before_the_last_is_mapped_through_what_follows_it(method):
    torch.manual_seed(0)
    rest = nn.Sequential(nn.Conv2d(8, 4, 3, stride=2), nn.ReLU(), Wgap(4, 3))
    plain = random_inputs(Wgap(8, 3))
    inputs = CamInputs(plain.features, plain.labels, rest, None, plain.images, plain.look, plain.generator)
    found = make_cam(method, inputs)
    assert found.shape == (3, 6, 5)
    assert found.amax() > 0


def test_ablation_in_batches_of_channels_changes_nothing():
    torch.manual_seed(0)
    inputs = random_inputs(POOLINGS["attention"](8, 3))
    torch.testing.assert_close(AblationCam(batch=3)(inputs), AblationCam()(inputs))


def attentive_case() -> CamInputs:
    """Two blocks of two heads: 1 and 3 in the corner in the first block, 5 and 7 in the last row in the last block."""
    attention = torch.zeros(1, 2, 2, 4, 4)
    attention[0, 0, 0, 0, 0], attention[0, 0, 1, 0, 0] = 1.0, 3.0
    attention[0, 1, 0, 3], attention[0, 1, 1, 3] = 5.0, 7.0
    head = head_of([[8.0, -4.0], [1.0, 1.0]])
    return CamInputs(case(), torch.tensor([0]), head, head, attention=attention)


def test_ts_cam_couples_the_mean_attention_with_the_heads_map():
    # Mean attention 4 / 4 in the corner and 12 / 4 in the row; the head's map there is 8 * 4 and -4 * 1.
    torch.testing.assert_close(make_cam("tscam", attentive_case()), map_of(1 * 32, 3 * -4))


def test_cls_attention_is_that_of_the_last_block_whatever_the_class():
    inputs = attentive_case()
    other = CamInputs(inputs.features, torch.tensor([1]), inputs.score, inputs.head, attention=inputs.attention)
    for found in (inputs, other):
        torch.testing.assert_close(make_cam("clsattention", found), map_of(0, 6))


def test_prior_cam_by_hand():
    # Means of the channels 4/16 and 4/16: both known classes have logit 0 and probability 1/2. With tag 0 the first is
    # 1 / (1/2 + 1e-4) times as probable as without, the second 0: only the weights 8 and -8 of the first class count.
    prior = TagPrior(2, 2, known=2)
    prior.set_classifier(torch.tensor([[8.0, -8.0], [-1.0, 1.0]]), torch.zeros(2))
    prior.set_ratio(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    head = head_of([[1.0, 0.0], [0.0, 1.0]])
    for label, corner, row in ((0, 32, 0), (1, 0, 1)):
        found = make_cam("prior", from_head(case(), torch.tensor([label]), head, prior=prior))
        torch.testing.assert_close(found, map_of(corner, row))


def test_a_negative_score_does_not_turn_the_ablation_map_over():
    inputs = from_head(case(), torch.tensor([0]), head_of([[8.0, -4.0], [1.0, 1.0]], bias=[-100.0, 0.0]))
    torch.testing.assert_close(make_cam("ablationcam", inputs), map_of(8, 0))
    torch.testing.assert_close(CAM_METHODS["ablationcam"].make(inputs), map_of(8, 0))


def test_what_a_method_needs_and_does_not_get_is_named():
    inputs = inputs_through(positive_square, case())
    with pytest.raises(ValueError, match="cam needs the class head itself"):
        make_cam("cam", inputs)
    with pytest.raises(ValueError, match="tscam needs the class head itself"):
        make_cam("tscam", inputs)
    for method in ("scorecam", "sscam", "iscam", "smoothgradcam++"):
        with pytest.raises(ValueError, match="the images"):
            make_cam(method, inputs)
    for method in ("tscam", "clsattention"):
        with pytest.raises(ValueError, match="looks at the attention of a vision transformer: the inputs have none"):
            make_cam(method, from_head(case(), torch.tensor([0]), head_of([[8.0, -4.0], [1.0, 1.0]])))
    with pytest.raises(ValueError, match=r"prior needs the ImageNet classifier .*: the inputs have none"):
        make_cam("prior", from_head(case(), torch.tensor([0]), head_of([[8.0, -4.0], [1.0, 1.0]])))
    with pytest.raises(
        ValueError, match=r"features must be \[N, D, h, w\] and labels \[N\], got \[1, 2, 4, 4\] and \[2\]"
    ):
        CamInputs(case(), torch.tensor([0, 1]), positive_square)


def test_stretched_maps_reach_0_and_1_and_constant_ones_are_0():
    maps = torch.tensor([[[2.0, 4.0], [3.0, 2.0]], [[5.0, 5.0], [5.0, 5.0]]])
    assert normalize_cam(maps).tolist() == [[[0.0, 1.0], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]


def test_a_map_with_a_nan_becomes_0_and_leaves_the_others_alone():
    maps = torch.tensor([[[0.0, math.nan]], [[1.0, 3.0]]])
    assert normalize_cam(maps).tolist() == [[[0.0, 0.0]], [[0.0, 1.0]]]


def test_maps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"maps must be \[N, h, w\], got \[2, 2\]"):
        normalize_cam(torch.zeros(2, 2))
