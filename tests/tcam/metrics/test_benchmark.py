"""Golden values of the WSOL benchmark's rule, and its metrics against the straightforward loop."""

import numpy as np
import pytest
import torch

from tcam.boxes.boxes import inclusive_iou
from tcam.metrics.accuracy import BoxAccuracyEvaluator
from tcam.metrics.benchmark import best_contour_boxes, boxes_on_grid, largest_contour_boxes
from tcam.metrics.corloc import CorLocEvaluator
from tcam.metrics.rules import match_maps
from tcam.types import Box, FrameTruth

THRESHOLDS = [i / 1000 for i in range(1000)]


def golden_map() -> torch.Tensor:
    one = torch.zeros(224, 224, dtype=torch.float64)
    one[50:100, 30:90] = 0.8
    one[60:80, 40:60] = 0.1
    one[150:170, 150:170] = 1.0
    return one


def test_the_largest_contour_of_the_golden_map():
    big, small = [30, 50, 90, 100], [150, 150, 170, 170]
    wanted = {0.0: big, 0.05: big, 0.5: big, 0.79: big, 0.8: small, 0.85: small, 0.999: small}
    assert largest_contour_boxes(golden_map()[None], list(wanted))[0].tolist() == list(wanted.values())


@pytest.mark.parametrize("box", [[150, 150, 170, 170], [30, 50, 90, 100], [39, 59, 61, 81]])
def test_all_contours_of_the_golden_map_hold_the_hole_too(box):
    truth = torch.tensor([[box]], dtype=torch.float64)
    assert best_contour_boxes(golden_map()[None], [0.5], truth)[0].tolist() == [box]


def test_a_map_of_ones_ends_at_223_and_an_empty_one_is_all_zero():
    assert largest_contour_boxes(torch.ones(1, 224, 224), [0.0, 0.7, 0.999])[0].tolist() == [[0, 0, 223, 223]] * 3
    assert largest_contour_boxes(torch.zeros(1, 224, 224), [0.0, 0.5])[0].tolist() == [[0, 0, 0, 0]] * 2


def test_true_boxes_are_scaled_and_lose_their_fractions():
    first = boxes_on_grid(torch.tensor([87.0789, 101.0263, 383.9211, 207.3421]), (360, 450))
    second = boxes_on_grid(torch.tensor([7, 65, 442, 359]), (360, 480))
    assert first.tolist() == [43, 62, 191, 129]
    assert second.tolist() == [3, 40, 206, 223]


def test_overlap_counts_both_ends():
    a, b = torch.tensor([30.0, 50, 90, 100]), torch.tensor([60.0, 50, 120, 100])
    assert float(inclusive_iou(a, b)) == pytest.approx(0.340659, abs=1e-6)
    assert float(inclusive_iou(torch.zeros(4), torch.tensor([0.0, 0, 223, 223]))) == pytest.approx(1.99e-5, abs=1e-7)


def test_maps_of_another_size_are_brought_to_the_grid():
    small = torch.zeros(1, 56, 56)
    small[0, 14:28, 14:42] = 1
    (box,) = largest_contour_boxes(small, [0.5])[0].tolist()
    assert box == pytest.approx([56, 56, 168, 112], abs=2)


def random_maps(generator: np.random.Generator, count: int) -> torch.Tensor:
    """Maps of every kind: smooth, with plateaus, noisy."""
    coarse = torch.from_numpy(generator.random((count, 1, 9, 9)))
    maps = torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")[:, 0]
    maps[1::3] = (maps[1::3] * 6).round() / 6
    maps[2::3] = (maps[2::3] + 0.1 * torch.from_numpy(generator.random(maps[2::3].shape))) / 1.1
    return maps


def random_truth(generator: np.random.Generator, count: int) -> list[FrameTruth]:
    """One to three true boxes per frame of 360 x 480 pixels, of three classes; some reach beyond the frame."""
    frames = []
    for number in range(count):
        corners = generator.uniform((-20, -20), (400, 280), (generator.integers(1, 4), 2))
        sides = generator.uniform(20, 260, corners.shape)
        boxes = tuple(Box(*map(float, (*low, *(low + side)))) for low, side in zip(corners, sides, strict=True))
        frames.append(FrameTruth(f"v{number % 4}", number, number % 3, boxes))
    return frames


def compare_with_the_loop(maps: torch.Tensor, truth: list[FrameTruth], thresholds: list[float]) -> None:
    """Check every overlap, and the figures made from them, against one threshold, box and frame after the other."""
    from tests.helpers.opencv import best_ious, true_corners

    size = (360, 480)
    ranks = [number % 7 for number in range(len(maps))]
    expected = {}
    for components, every in (("largest contour", False), ("all contours", True)):
        expected[components] = [
            best_ious(
                np.floor(255 * one.double().numpy()).astype(np.uint8),
                thresholds,
                [true_corners(tuple(box), size) for box in item.boxes],
                every=every,
            )
            for one, item in zip(maps, truth, strict=True)
        ]
        found = match_maps(maps, thresholds, truth, size, components=components).value
        np.testing.assert_allclose(found.numpy(), expected[components], rtol=0, atol=1e-12)
    single, many = BoxAccuracyEvaluator(len(thresholds)), BoxAccuracyEvaluator(len(thresholds))
    corloc = CorLocEvaluator(("a", "b", "c"), thresholds, components="largest contour")
    for part in (slice(0, 2), slice(2, None)):
        one = match_maps(maps[part], thresholds, truth[part], size, components="largest contour").value
        single.add(one, torch.tensor(ranks[part]))
        many.add(match_maps(maps[part], thresholds, truth[part], size, components="all contours").value)
        corloc.add(truth[part], one)

    def share(frames: list[int], rows: list[list[float]], level: float, top: int = 99) -> float:
        """The percentage of frames right at the best threshold."""
        return max(
            100 * sum(rows[i][k] >= level and ranks[i] < top for i in frames) / len(frames)
            for k in range(len(thresholds))
        )

    rows, all_frames = expected["largest contour"], list(range(len(maps)))
    levels = (0.3, 0.5, 0.7)
    assert single.compute().max_box_acc == pytest.approx({x: share(all_frames, rows, x) for x in levels})
    v2 = sum(share(all_frames, expected["all contours"], x) for x in levels) / 3
    assert many.compute().max_box_acc_v2 == pytest.approx(v2)
    assert single.compute().top_localization[1][0.5] == pytest.approx(share(all_frames, rows, 0.5, 1))
    assert single.compute().top_localization[5][0.3] == pytest.approx(share(all_frames, rows, 0.3, 5))
    own = [share([i for i in all_frames if truth[i].label == k], rows, 0.5) for k in range(3)]
    assert corloc.table("oracle per class").macro == pytest.approx(sum(own) / 3)
    assert corloc.accuracy().max() == pytest.approx(share(all_frames, rows, 0.5))


def test_metrics_of_random_maps_equal_the_loop():
    generator = np.random.default_rng(5)
    compare_with_the_loop(random_maps(generator, 7), random_truth(generator, 7), [i / 50 for i in range(50)])


@pytest.mark.slow
def test_metrics_at_a_thousand_thresholds_equal_the_loop():
    generator = np.random.default_rng(6)
    compare_with_the_loop(random_maps(generator, 3), random_truth(generator, 3), THRESHOLDS)


@pytest.mark.real
@pytest.mark.slow
def test_metrics_of_layercam_maps_of_real_clips_equal_the_loop(shared_data):
    maps = real_maps(shared_data, 6)
    compare_with_the_loop(maps, random_truth(np.random.default_rng(7), len(maps)), [i / 100 for i in range(100)])


def real_maps(shared_data, count: int) -> torch.Tensor:
    """LayerCAM of ImageNet features under a head that was never trained, on frames of different clips."""

    from tcam.model.backbone import Backbone, load_backbone_weights
    from tcam.model.cam.inputs import from_head, normalize_cam
    from tcam.model.cam.methods import make_cam
    from tcam.model.heads.pooling import Wgap
    from tcam.model.network import FrameCamNet
    from tcam.video.reader import stream_frames

    torch.manual_seed(0)
    backbone = Backbone("mobilenetv2_100", output_stride=8, options={"pad_type": "same"})
    load_backbone_weights(backbone, str(shared_data / "weights" / "mobilenetv2_100_tf_same_fp16.safetensors"))
    network = FrameCamNet(backbone, Wgap(backbone.last_channels, 3), None).eval()
    clips = sorted((shared_data / "clips").glob("*/*.mp4"))[::7][:count]
    frames = torch.tensor(np.stack([next(stream_frames(clip, size=(224, 224))).pixels for clip in clips]))
    with torch.inference_mode():
        output = network(frames)
        cams = make_cam("layercam", from_head(output.features, torch.arange(len(frames)) % 3, network.head))
        full = torch.nn.functional.interpolate(normalize_cam(cams)[:, None], size=(224, 224), mode="bilinear")
    return full[:, 0]
