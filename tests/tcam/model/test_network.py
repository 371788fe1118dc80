import pytest
import torch

from tcam.model.backbone import Backbone
from tcam.model.decoder import UnetDecoder
from tcam.model.heads.pooling import Wgap
from tcam.model.network import FrameCamNet
from tcam.model.pixel_head import PixelHead


def _network(*, decoder=True):
    torch.manual_seed(0)
    backbone = Backbone("test_resnet", levels_used=3)
    unet = UnetDecoder(backbone.level_channels, channels=(16, 8, 4)) if decoder else None
    return FrameCamNet(backbone, Wgap(backbone.last_channels, 3), unet)


def _frames(count=2, side=32):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _statistics(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_frames_become_scores_features_and_maps_at_frame_size():
    output = _network()(_frames())
    assert output.class_logits.shape == (2, 3)
    assert output.features.shape == (2, 48, 4, 4)
    assert output.map_logits.shape == (2, 2, 32, 32)


def test_a_network_without_decoder_gives_no_maps():
    assert _network(decoder=False)(_frames()).map_logits is None


def test_the_network_normalises_pixels_itself():
    network = _network(decoder=False).eval()
    frames = _frames()
    mean, std = torch.tensor(network.backbone.mean), torch.tensor(network.backbone.std)
    by_hand = (frames.float() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(network(frames).features, network.backbone(by_hand).last, rtol=1e-4, atol=1e-5)


def test_normalisation_is_not_part_of_the_saved_weights():
    assert not [name for name in _network().state_dict() if name in ("mean", "scale")]


def test_resnet50_with_ten_classes_has_the_published_parameter_count():
    backbone = Backbone("resnet50", output_stride=8)
    network = FrameCamNet(backbone, Wgap(backbone.last_channels, 10), UnetDecoder(backbone.level_channels))
    assert sum(p.numel() for p in network.parameters()) == 32_541_740
    network.freeze_classifier()
    assert sum(p.numel() for p in network.trainable_parameters()) == 9_013_218


def test_a_frozen_classifier_does_not_change_in_training_while_the_decoder_does():
    network = _network()
    network.freeze_classifier()
    network.train()
    backbone, decoder = _statistics(network.backbone), _statistics(network.decoder)
    optimizer = torch.optim.SGD(network.trainable_parameters(), lr=0.1)
    output = network(_frames())
    output.map_logits.square().mean().backward()
    optimizer.step()
    assert not output.features.requires_grad
    assert not output.class_logits.requires_grad
    assert all(torch.equal(value, backbone[name]) for name, value in network.backbone.state_dict().items())
    assert not all(torch.equal(value, decoder[name]) for name, value in network.decoder.state_dict().items())


def test_frozen_batch_norm_keeps_statistics_and_affine_weights_while_convolutions_learn():
    network = _network()
    network.freeze_batch_norm()
    network.train()
    before = _statistics(network.backbone)
    optimizer = torch.optim.SGD(network.trainable_parameters(), lr=0.1)
    network(_frames()).class_logits.square().mean().backward()
    optimizer.step()
    after = network.backbone.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    norms = {name for name, module in network.backbone.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert norms
    assert not {name.rpartition(".")[0] for name in changed} & norms
    assert network.decoder.blocks[0][1].training


def test_evaluation_mode_and_back_keeps_what_is_frozen_in_evaluation_mode():
    network = _network()
    network.freeze_classifier()
    network.eval()
    network.train()
    assert not network.backbone.training
    assert not network.head.training
    assert network.decoder.training


def test_logits_stay_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = _network()(_frames())
    assert output.class_logits.dtype == output.map_logits.dtype == torch.float32


def test_normalised_or_misshapen_frames_are_refused():
    with pytest.raises(ValueError, match=r"frames must be uint8 \[N, 3, H, W\], got torch.float32"):
        _network()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\[1, 2, 3, 32, 32\]"):
        _network()(torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.gpu
def test_a_network_on_an_accelerator_agrees_with_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    network = _network().eval()
    expected = network(_frames()).map_logits
    torch.testing.assert_close(network.cuda()(_frames().cuda()).map_logits.cpu(), expected, rtol=1e-2, atol=1e-2)


def test_the_pixel_classifier_sees_what_the_class_head_sees():
    backbone = Backbone("test_efficientnet")
    assert backbone.last_channels != backbone.level_channels[-1]  # a convolution stands behind the last level
    network = FrameCamNet(backbone, Wgap(backbone.last_channels, 3), PixelHead(backbone.last_channels)).eval()
    output = network(_frames(side=64))
    torch.testing.assert_close(output.map_logits, network.decoder((output.features,), (64, 64)))


def test_a_mask_hides_pixels_behind_the_mean_colour():
    network, frames = _network().eval(), _frames()
    masks = torch.ones(2, 32, 32)
    torch.testing.assert_close(network.score_masked(frames, masks), network(frames).class_logits)
    hidden = network.score_masked(frames, 0 * masks)
    torch.testing.assert_close(hidden[0], hidden[1])
    masks[:, :, 16:] = 0
    half = network.score_masked(frames, masks)
    changed = frames.clone()
    changed[..., 16:] = 7
    torch.testing.assert_close(network.score_masked(changed, masks), half)


def test_the_gradient_reaches_masks_through_a_frozen_classifier():
    network = _network()
    network.freeze_classifier()
    masks = torch.full((2, 32, 32), 0.5, requires_grad=True)
    network.score_masked(_frames(), masks).sum().backward()
    assert masks.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"masks must be \[N, H, W\] of frames \[2, 3, 32, 32\], got \[2, 16, 32\]"):
        _network().score_masked(_frames(), torch.ones(2, 16, 32))


def test_where_frames_may_have_several_tags_each_has_a_probability_and_maps():
    backbone = Backbone("test_resnet", levels_used=3)
    unet = UnetDecoder(backbone.level_channels, channels=(16, 8, 4), num_tags=3)
    network = FrameCamNet(backbone, Wgap(backbone.last_channels, 3), unet, several_tags=True).eval()
    with torch.inference_mode():
        free = network(_frames())
        assert torch.allclose(network.probabilities(free.class_logits), free.class_logits.sigmoid())
        best = free.class_logits.argmax(dim=1)
        asked = [network(_frames(), torch.full((2,), tag)).map_logits for tag in range(3)]
        for i in range(2):
            assert torch.equal(free.map_logits[i], asked[int(best[i])][i])
        assert not torch.allclose(asked[0], asked[1])
        assert torch.equal(network(_frames(), torch.tensor([-1, 2])).map_logits[1], asked[2][1])
        fused = network.fused()
        assert fused.several_tags
        found = fused(_frames(), torch.tensor([0, 1])).map_logits.softmax(1)
        assert torch.allclose(found, torch.stack([asked[0][0], asked[1][1]]).softmax(1), atol=1e-4)


def test_with_one_tag_per_frame_probabilities_add_up_and_labels_choose_no_map():
    network = _network().eval()
    with torch.inference_mode():
        plain, asked = network(_frames()), network(_frames(), torch.tensor([2, 1]))
    assert torch.equal(plain.map_logits, asked.map_logits)
    assert torch.allclose(network.probabilities(plain.class_logits).sum(dim=1), torch.ones(2))
