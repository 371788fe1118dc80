import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tcam.boxes.extract import boxes_at_thresholds, extract_box, extract_boxes
from tcam.types import Box, FrameGeometry

levels_maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.sampled_from([0, 0, 1, 2, 60, 128, 254, 255]))
)
thresholds = st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=1, max_size=12)


def as_map(levels) -> torch.Tensor:
    """A map whose pixels fall into the middle of the given levels 0..255."""
    levels = torch.as_tensor(levels, dtype=torch.float64)
    return torch.where(levels == 255, 1.0, (levels + 0.5) / 255).where(levels > 0, 0.0)


def walked_box(levels: np.ndarray, threshold: float) -> tuple[int, int, int, int] | None:
    """The definition, slowly: flood every component in reading order and keep the first of the largest."""
    height, width = levels.shape
    cut = math.floor(threshold * int(levels.max()))
    left = {(y, x) for y in range(height) for x in range(width) if levels[y, x] > cut}
    best: list[tuple[int, int]] = []
    for seed in sorted(left):
        if seed not in left:
            continue
        left.remove(seed)
        component, border = [seed], [seed]
        while border:
            y, x = border.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            border += near
            component += near
        if len(component) > len(best):
            best = component
    if not best:
        return None
    ys, xs = zip(*best, strict=True)
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


def plain(height: int, width: int) -> FrameGeometry:
    return FrameGeometry.plain_resize((height, width), (height, width))


def golden_map() -> torch.Tensor:
    levels = torch.zeros(224, 224, dtype=torch.float64)
    levels[50:100, 30:90] = 0.8
    levels[60:80, 40:60] = 0.1
    levels[150:170, 150:170] = 1.0
    return levels


def golden_thresholds() -> dict[float, list[float]]:
    big, small = [30.0, 50.0, 90.0, 100.0], [150.0, 150.0, 170.0, 170.0]
    return {0.0: big, 0.05: big, 0.5: big, 0.79: big, 0.8: small, 0.85: small, 0.999: small}


def test_the_sweep_gives_the_golden_boxes_of_the_benchmarks_rule():
    golden = golden_thresholds()
    found = boxes_at_thresholds(golden_map(), list(golden))
    assert found.dtype == torch.float64
    assert found.tolist() == list(golden.values())


@pytest.mark.slow
def test_one_threshold_gives_the_golden_boxes_too():
    for threshold, box in golden_thresholds().items():
        assert list(extract_box(golden_map(), threshold, plain(224, 224)) or ()) == box


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.999])
def test_a_map_of_ones_gives_the_full_frame(threshold):
    assert extract_box(torch.ones(224, 224), threshold, plain(224, 224)) == Box(0, 0, 224, 224)


def test_nothing_above_the_threshold_is_none_and_nan():
    assert extract_box(torch.zeros(5, 5), 0.0, plain(5, 5)) is None
    assert extract_box(torch.ones(5, 5), 1.0, plain(5, 5)) is None
    assert boxes_at_thresholds(torch.zeros(5, 5), [0.0, 0.5]).isnan().all()


def test_a_value_below_the_first_level_counts_as_nothing():
    assert extract_box(torch.full((3, 3), 0.0039), 0.0, plain(3, 3)) is None
    assert extract_box(torch.full((3, 3), 0.004), 0.0, plain(3, 3)) == Box(0, 0, 3, 3)


def test_a_pixel_at_the_threshold_is_not_above_it():
    levels = torch.tensor([[100, 50, 51]])
    assert boxes_at_thresholds(as_map(levels), [0.5]).tolist() == [[0, 0, 1, 1]]  # 51 is kept but not joined to 100
    assert boxes_at_thresholds(as_map(levels), [0.49]).tolist() == [[0, 0, 3, 1]]


def test_pixels_that_touch_at_a_corner_are_one_component():
    assert extract_box(torch.eye(4), 0.5, plain(4, 4)) == Box(0, 0, 4, 4)
    assert extract_box(torch.eye(4).flip(1), 0.5, plain(4, 4)) == Box(0, 0, 4, 4)


def test_the_component_with_most_pixels_wins_not_the_widest_box():
    ring = torch.zeros(8, 12)
    ring[0, 0:6] = ring[:, 0] = 1  # an L of 13 pixels in a box of 6 x 8
    ring[3:7, 8:12] = 1  # a block of 16 pixels in a box of 4 x 4
    assert extract_box(ring, 0.5, plain(8, 12)) == Box(8, 3, 12, 7)


def test_of_equally_large_components_the_first_in_reading_order_wins():
    levels = torch.zeros(6, 9)
    levels[1:3, 6:8] = 1  # its first row is higher
    levels[2:4, 0:2] = 1
    assert extract_box(levels, 0.5, plain(6, 9)) == Box(6, 1, 8, 3)
    assert extract_box(levels.flip(1), 0.5, plain(6, 9)) == Box(1, 1, 3, 3)
    assert extract_box(levels.flip(0), 0.5, plain(6, 9)) == Box(0, 2, 2, 4)


def test_components_do_not_join_around_the_ends_of_rows():
    levels = torch.zeros(4, 3)
    levels[0, 2] = levels[1, 2] = levels[2, 0] = levels[3, 0] = 1
    assert extract_box(levels, 0.5, plain(4, 3)) == Box(2, 0, 3, 2)


@settings(max_examples=150)
@given(levels_maps, thresholds)
def test_the_sweep_equals_a_flood_fill_at_every_threshold(levels, wanted):
    expected = [walked_box(levels, threshold) for threshold in wanted]
    found = boxes_at_thresholds(as_map(levels), wanted)
    assert [None if row.isnan().any() else tuple(row.tolist()) for row in found] == expected


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(arrays(np.int64, (6, 7), elements=st.integers(0, 3)), min_size=1, max_size=5), st.integers(0, 100))
def test_many_maps_at_once_equal_each_alone(stack, hundredths):
    maps = torch.stack([as_map(levels * 80) for levels in stack])
    found = extract_boxes(maps, hundredths / 100, [plain(6, 7)] * len(stack))
    expected = [walked_box(levels * 80, hundredths / 100) for levels in stack]
    assert [None if box is None else tuple(box) for box in found] == expected


@pytest.mark.parametrize("smooth", [True, False])
def test_a_large_map_equals_a_flood_fill(smooth):
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(1, 1, 40, 50, generator=generator)
    field = torch.nn.functional.avg_pool2d(noise, 7, stride=1, padding=3) if smooth else noise
    field = (field[0, 0] - field.min()) / (field.max() - field.min())
    wanted = [0.0, 0.2, 0.45, 0.46, 0.7, 0.95, 1.0]
    levels = (field * 255).to(torch.uint8).long().numpy()
    found = boxes_at_thresholds(field, wanted)
    expected = [walked_box(levels, threshold) for threshold in wanted]
    assert [None if row.isnan().any() else tuple(row.tolist()) for row in found] == expected


@settings(max_examples=60)
@given(st.lists(arrays(np.int64, (6, 7), elements=st.integers(0, 255)), min_size=1, max_size=4), thresholds)
def test_many_maps_at_many_thresholds_equal_each_alone(stack, wanted):
    maps = torch.stack([as_map(levels) for levels in stack])
    alone = torch.stack([boxes_at_thresholds(one, wanted) for one in maps])
    torch.testing.assert_close(boxes_at_thresholds(maps, wanted), alone, equal_nan=True, rtol=0, atol=0)


@given(levels_maps, thresholds)
def test_the_order_and_number_of_thresholds_change_no_box(levels, wanted):
    both = boxes_at_thresholds(as_map(levels), [*wanted, *wanted[::-1]])
    alone = torch.cat([boxes_at_thresholds(as_map(levels), [threshold]) for threshold in wanted])
    torch.testing.assert_close(both, torch.cat([alone, alone.flip(0)]), equal_nan=True)


def test_a_box_comes_back_in_pixels_of_the_original_frame():
    levels = torch.zeros(4, 8)
    levels[1:3, 2:6] = 1
    wide = FrameGeometry.plain_resize((120, 80), (4, 8))
    assert extract_box(levels, 0.5, wide) == Box(20, 30, 60, 90)
    cut = FrameGeometry(original=(60, 100), resized=(6, 10), offset=(2, 1), input_size=(4, 8), flipped=True)
    assert extract_box(levels, 0.5, cut) == Box(30, 30, 70, 50)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_kind_of_float_is_welcome(dtype):
    levels = torch.zeros(4, 4, dtype=dtype)
    levels[1, 1:3] = 1
    assert extract_box(levels, 0.5, plain(4, 4)) == Box(1, 1, 3, 2)


def test_no_maps_give_no_boxes_and_no_thresholds_no_rows():
    assert extract_boxes(torch.zeros(0, 4, 4), 0.5, []) == []
    assert boxes_at_thresholds(torch.ones(4, 4), []).shape == (0, 4)
    assert boxes_at_thresholds(torch.ones(0, 4, 4), [0.5]).shape == (0, 1, 4)


def test_maps_that_ask_for_gradients_are_welcome():
    assert extract_box(torch.ones(2, 2, requires_grad=True), 0.5, plain(2, 2)) == Box(0, 0, 2, 2)


@pytest.mark.parametrize(
    ("values", "found"), [((0.0, 3.0), "0 to 3"), ((-2.0, 1.0), "-2 to 1"), ((0.5, math.nan), "nan to nan")]
)
def test_logits_and_nan_are_refused(values, found):
    with pytest.raises(ValueError, match=f"numbers in 0..1, got {found}"):
        extract_box(torch.tensor([values]), 0.5, plain(1, 2))


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.nan])
def test_thresholds_outside_0_to_1_are_refused(threshold):
    with pytest.raises(ValueError, match=r"thresholds must lie in 0\.\.1, got"):
        boxes_at_thresholds(torch.ones(2, 2), [threshold])


def test_shapes_are_checked_at_the_door():
    with pytest.raises(ValueError, match=r"map must be \[H, W\], got \[1, 2, 2\]"):
        extract_box(torch.ones(1, 2, 2), 0.5, plain(2, 2))
    with pytest.raises(ValueError, match=r"maps must be \[N, H, W\] with N = 1 geometries, got \[2, 2, 2\]"):
        extract_boxes(torch.ones(2, 2, 2), 0.5, [plain(2, 2)])
    with pytest.raises(ValueError, match=r"maps must cover the geometry's input \(4, 4\), got \[1, 2, 2\]"):
        extract_boxes(torch.ones(1, 2, 2), 0.5, [plain(4, 4)])
    with pytest.raises(ValueError, match=r"thresholds \[L\], got \[1, 2, 2\], \[1, 1\]"):
        boxes_at_thresholds(torch.ones(2, 2), torch.ones(1, 1))
    with pytest.raises(ValueError, match="a map must hold floats"):
        boxes_at_thresholds(torch.ones(2, 2, dtype=torch.uint8), [0.5])


@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "<f8"])
def test_one_threshold_gives_the_boxes_of_many(kind):
    """On levels as they are, just below and above, and outside 0..1 by rounding; of arrays and of tensors."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        exact = generator.integers(0, 256, (6, 9, 11)) / 255
        maps = np.clip(exact + generator.choice([0, 0, -1e-7, 1e-7, -9e-4, 9e-4], exact.shape), -9e-4, 1 + 9e-4).astype(
            kind
        )
        tensors = torch.from_numpy(maps.astype(maps.dtype.newbyteorder("=")))
        thresholds = [0.0, *generator.random(3), 1.0]
        expected = boxes_at_thresholds(tensors, thresholds)
        for i, threshold in enumerate(thresholds):
            rows = [None if row.isnan().any() else Box(*row.tolist()) for row in expected[:, i]]
            assert extract_boxes(maps, threshold, [plain(9, 11)] * 6) == rows
            assert extract_boxes(tensors, threshold, [plain(9, 11)] * 6) == rows


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_arrays_that_are_no_maps_are_refused(dtype):
    expected = "numbers in 0..1, got 0 to 2" if dtype == np.float32 else "must hold floats, at least one, got int64"
    with pytest.raises(ValueError, match=expected):
        extract_box(np.array([[0, 2]], dtype), 0.5, plain(1, 2))
