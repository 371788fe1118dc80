import math

import pytest
import torch

from tcam.metrics.pxap import PxApEvaluator
from tcam.types import IGNORE


def masks(*values: int) -> torch.Tensor:
    return torch.tensor([[list(values)]], dtype=torch.uint8)


def maps(*values: float) -> torch.Tensor:
    return torch.tensor([[list(values)]])


def slow_pxap(values: list[float], inside: list[int], bins: int) -> float:
    """Precision and recall of one threshold after the other."""
    total, area, before = sum(inside), 0.0, 0.0
    for k in range(bins, -1, -1):
        kept = [label for value, label in zip(values, inside, strict=True) if int(value * bins) >= k]
        if kept:
            recall = sum(kept) / total
            area += sum(kept) / len(kept) * (recall - before)
            before = recall
    return 100 * area


def test_a_map_that_separates_the_mask_is_perfect_and_the_opposite_is_not():
    evaluator = PxApEvaluator()
    evaluator.add(maps(0.9, 0.8, 0.2, 0.0), masks(1, 1, 0, 0))
    assert evaluator.compute() == 100
    evaluator = PxApEvaluator()
    evaluator.add(maps(0.1, 0.8), masks(1, 0))
    assert evaluator.compute() == 50  # only with everything as foreground, half of which is right


def test_ignored_pixels_count_for_nothing():
    evaluator = PxApEvaluator()
    evaluator.add(maps(0.9, 1.0, 0.2), masks(1, IGNORE, 0))
    assert evaluator.compute() == 100


def test_many_pixels_equal_a_count_threshold_by_threshold():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 8, 9, generator=generator, dtype=torch.float64)
    inside = (torch.rand(3, 8, 9, generator=generator) < 0.3 + 0.4 * values).to(torch.uint8)
    evaluator = PxApEvaluator(num_bins=20)
    for one, mask in zip(values, inside, strict=True):
        evaluator.add(one[None], mask[None])
    assert evaluator.compute() == pytest.approx(slow_pxap(values.flatten().tolist(), inside.flatten().tolist(), 20))


def test_without_masks_there_is_no_figure():
    evaluator = PxApEvaluator()
    assert math.isnan(evaluator.compute())
    evaluator.add(maps(0.5), masks(0))
    assert math.isnan(evaluator.compute())


def test_shapes_and_values_are_checked():
    evaluator = PxApEvaluator()
    with pytest.raises(ValueError, match=r"must both be \[N, H, W\], got \[1, 1, 2\], \[1, 1, 1\]"):
        evaluator.add(maps(0.5, 0.5), masks(0))
    with pytest.raises(ValueError, match=r"maps must hold numbers in 0\.\.1"):
        evaluator.add(maps(math.nan), masks(0))
    with pytest.raises(ValueError, match="masks must hold 0, 1 and 255 only"):
        evaluator.add(maps(0.5), masks(7))
    with pytest.raises(ValueError, match="num_bins must be at least 1"):
        PxApEvaluator(0)
