import dataclasses
import sys
from functools import partial

import pytest
import torch

from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer, build_network, class_activation
from pipelines.parallel.map import ordered_map
from pipelines.parallel.placement import Placement
from pipelines.run.memory import resident_bytes
from tcam.errors import ConfigError
from tcam.model.cam.methods import CAM_METHODS
from tcam.model.decoder import UnetDecoder
from tcam.model.fused_decoder import FusedDecoder
from tcam.model.heads.pooling import POOLINGS, Wgap
from tcam.types import FrameOutput
from tests.helpers.tiny import CPU, SIDE, tiny_config, tiny_localizer
from tests.pipelines.run.test_memory import MB, page_faults_of_large_tensors


def some_frames(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def test_the_seed_decides_the_weights():
    model = tiny_config().model
    one, same, other = (build_network(model, 2, decoder=True, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert any(name.startswith("decoder.") for name in one)
    assert not any(name.startswith("decoder.") for name in build_network(model, 2, decoder=False, seed=1).state_dict())


def test_a_model_that_does_not_exist_is_a_config_error():
    with pytest.raises(ConfigError, match="timm has no model 'resnet5000'"):
        build_network(tiny_config("model.backbone=resnet5000").model, 2, decoder=False, seed=0)


@pytest.mark.parametrize("method", ["cam", "layercam", "decoder"])
def test_maps_cover_the_frames_and_lie_in_0_to_1(method):
    found = tiny_localizer(method)(some_frames())
    assert found.maps.shape == (3, SIDE, SIDE)
    assert found.maps.dtype == torch.float32
    assert found.maps.min() >= 0
    assert found.maps.max() <= 1
    torch.testing.assert_close(found.probabilities.sum(dim=1), torch.ones(3))
    assert torch.equal(found.labels, found.probabilities.argmax(dim=1))


@pytest.mark.parametrize("method", ["cam", "layercam"])
def test_a_cam_is_of_the_label_asked_for(method):
    localizer, frames = tiny_localizer(method), some_frames()
    zero, one = (localizer(frames, torch.full((3,), label)) for label in (0, 1))
    assert zero.labels.tolist() == [0, 0, 0]
    assert one.labels.tolist() == [1, 1, 1]
    assert not torch.equal(zero.maps, one.maps)
    unasked = localizer(frames)
    for i, label in enumerate(unasked.labels.tolist()):
        torch.testing.assert_close(unasked.maps[i], (zero, one)[label].maps[i])


def test_the_decoders_map_is_its_foreground_probability():
    localizer, frames = tiny_localizer("decoder"), some_frames()
    with torch.inference_mode():
        logits = localizer.network(frames).map_logits
    torch.testing.assert_close(localizer(frames).maps, torch.sigmoid(logits[:, 1] - logits[:, 0]))


def test_a_frames_map_does_not_depend_on_its_neighbours_in_the_batch():
    localizer, frames = tiny_localizer("layercam"), some_frames()
    together = localizer(frames)
    for i in range(3):
        torch.testing.assert_close(localizer(frames[i : i + 1]).maps[0], together.maps[i], rtol=1e-4, atol=1e-4)


def test_class_activations_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 1.0]]]])  # two channels of 1 x 2
    output, localizer = FrameOutput(torch.zeros(1, 2), features, None), tiny_localizer("cam")
    localizer.network.head = Wgap(2, 2)

    def found(method: str, label: int, weight: list[list[float]]) -> list[float]:
        with torch.no_grad():
            localizer.network.head.weight.copy_(torch.tensor(weight))
        made = dataclasses.replace(localizer, method=method)
        maps = class_activation(made, some_frames(1), output=output, labels=torch.tensor([label]))
        return maps.flatten().tolist()

    plain, flipped = [[1.0, 0.0], [1.0, -1.0]], [[-1.0, 0.0], [0.0, 1.0]]
    assert found("cam", 0, plain) == [0.0, 1.0]
    assert found("cam", 1, plain) == [0.0, 1.0]  # -2 and 1
    assert found("cam", 0, flipped) == [1.0, 0.0]
    assert found("layercam", 0, flipped) == [0.0, 0.0]
    assert found("layercam", 1, flipped) == [1.0, 0.0]


FAST = [
    name
    for name, row in CAM_METHODS.items()
    if name not in ("scorecam", "sscam", "iscam") and not row.of_attention and not row.of_imagenet
]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_run_of_any_pooling_makes_maps_by_any_method(pooling):
    settings = tiny_config(f"model.pooling={pooling}", "cam.method=cam")
    network, frames = build_network(settings.model, 2, decoder=False, seed=3).eval(), some_frames(2)
    for method in FAST if pooling != "wgap" else [*FAST, "scorecam"]:
        once, again = (NetworkLocalizer(network, method, CPU)(frames).maps for _ in range(2))
        assert torch.equal(once, again)
        assert once.amin() >= 0
        assert 0.5 < once.amax() <= 1, method
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("method", ["tscam", "clsattention", "layercam", "cam", "decoder"])
def test_a_vision_transformer_makes_maps_by_attention_and_otherwise(method):
    config = tiny_config(
        "model.backbone=test_vit", "model.levels_used=null", "model.output_stride=16", "model.pooling=convgap"
    )
    network = build_network(config.model, 2, decoder=method == "decoder", seed=0).eval()
    localizer, frames = NetworkLocalizer(network, method, CPU), some_frames()
    zero, one = (localizer(frames, torch.full((3,), label)).maps for label in (0, 1))
    assert zero.shape == (3, SIDE, SIDE)
    assert 0 <= zero.amin() < zero.amax() <= 1
    assert torch.equal(zero, one) == (method in ("clsattention", "decoder"))


def test_the_attention_of_an_output_is_what_ts_cam_takes():
    config = tiny_config("model.backbone=test_vit", "model.levels_used=null", "model.output_stride=null")
    network = build_network(config.model, 2, decoder=False, seed=0).eval()
    frames, labels = some_frames(1), torch.tensor([0])
    with torch.no_grad():
        output = network(frames)
        raw = output.attention.mean(dim=(1, 2)) * network.head.class_maps(output.features, labels)
    expected = (raw - raw.amin()) / (raw.amax() - raw.amin())
    found = class_activation(NetworkLocalizer(network, "tscam", CPU), frames, output=output, labels=labels)
    torch.testing.assert_close(found, expected)


def test_score_cam_looks_at_masked_frames():
    """It runs the whole network again: its maps change when the layers before the given features do."""
    localizer, frames = tiny_localizer("scorecam"), some_frames(1)
    with torch.no_grad():
        output = localizer.network(frames)
        labels = torch.tensor([0])
        before = class_activation(localizer, frames, output=output, labels=labels)
        for parameter in localizer.network.backbone.parameters():
            parameter.mul_(1.5)
        after = class_activation(localizer, frames, output=output, labels=labels)
    assert not torch.allclose(before, after)


def test_the_head_of_settings_has_a_background_only_when_asked_for():
    plain, more = (
        build_network(tiny_config("model.pooling=wildcat", *extra).model, 2, decoder=False, seed=0).head
        for extra in ((), ("model.background=true",))
    )
    assert (plain.maps.conv.out_channels, more.maps.conv.out_channels) == (10, 15)


def invert_bright(maps: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Turn the maps of frames over, brighter ones more."""
    return (1 - maps) * frames.float().mean(dim=(1, 2, 3))[:, None, None] / 255


@pytest.mark.parametrize("method", ["layercam", "decoder"])
def test_maps_are_refined_at_the_end_also_after_a_journey(method):
    plain, frames = tiny_localizer(method), some_frames()
    refined = dataclasses.replace(plain, refine=invert_bright)
    expected = invert_bright(plain(frames).maps, frames)
    assert torch.equal(refined(frames).maps, expected)
    torch.testing.assert_close(PackedLocalizer.pack(refined).unpack()(frames).maps, expected, atol=1e-5, rtol=0)


def test_a_decoder_is_fused_where_it_arrives_on_a_cpu():
    localizer = tiny_localizer("decoder")
    arrived = PackedLocalizer.pack(localizer).unpack()
    assert isinstance(arrived.network.decoder, FusedDecoder)
    assert isinstance(localizer.network.decoder, UnetDecoder)
    assert arrived.network.backbone is localizer.network.backbone
    assert not arrived.network.training


def start_counting_page_faults(packed: PackedLocalizer):
    packed.unpack()
    return count_page_faults


def count_page_faults(item: int) -> int:
    return page_faults_of_large_tensors()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_worker_with_a_model_keeps_the_memory_it_frees():
    start = partial(start_counting_page_faults, PackedLocalizer.pack(tiny_localizer("layercam")))
    first, second = ordered_map(start, [0, 1], placement=Placement(1), time_limit_s=60.0, holds_model=True)
    assert second < 64 * MB / 4096 <= first


def start_leaving_pieces(packed: PackedLocalizer):
    packed.unpack()
    return leave_pieces


def leave_pieces(item: int) -> tuple[int, int]:
    """Tell the memory at the start, and after pieces were freed below one that stays."""
    before = resident_bytes()
    pieces = [torch.ones(MB // 4) for _ in range(512)]
    KEPT.append(torch.ones(MB // 4))
    del pieces
    return before, resident_bytes()


KEPT: list[torch.Tensor] = []


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize(("limit_mb", "returned"), [(1600.0, True), (16_000.0, False)])
def test_a_worker_returns_what_it_keeps_beyond_half_of_its_limit(limit_mb, returned):
    start = partial(start_leaving_pieces, PackedLocalizer.pack(tiny_localizer("layercam")))
    (_, left), (found, _) = ordered_map(
        start, [0, 1], placement=Placement(1), time_limit_s=60.0, memory_limit_mb=limit_mb, holds_model=True
    )
    assert (left - found > 384 * MB) is returned
