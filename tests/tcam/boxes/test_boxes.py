import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tcam.boxes.boxes import centre_box, clip_boxes, full_frame_box, inclusive_iou, iou, scale_boxes

whole = st.integers(-20, 20)
sides = st.integers(1, 30)
boxes = st.builds(lambda x, y, w, h: torch.tensor([x, y, x + w, y + h]), whole, whole, sides, sides)
sizes = st.tuples(st.integers(1, 500), st.integers(1, 500))


def counted_iou(a: torch.Tensor, b: torch.Tensor) -> float:
    """The definition, pixel by pixel."""
    one = {(x, y) for x in range(int(a[0]), int(a[2])) for y in range(int(a[1]), int(a[3]))}
    two = {(x, y) for x in range(int(b[0]), int(b[2])) for y in range(int(b[1]), int(b[3]))}
    return len(one & two) / len(one | two)


@given(boxes, boxes)
def test_iou_of_whole_boxes_counts_pixels(a, b):
    assert float(iou(a, b)) == pytest.approx(counted_iou(a, b))


@given(boxes, boxes)
def test_inclusive_iou_is_the_iou_of_boxes_with_one_more_row_and_column(a, b):
    more = torch.tensor([0, 0, 1, 1])
    assert float(inclusive_iou(a, b)) == pytest.approx(counted_iou(a + more, b + more))


def test_a_box_that_covers_half_of_another_has_iou_one_half():
    assert float(iou(torch.tensor([0.0, 0.0, 10.0, 5.0]), torch.tensor([0.0, 0.0, 10.0, 10.0]))) == 0.5


def test_boxes_that_only_touch_do_not_overlap_unless_the_border_counts():
    left, right = torch.tensor([0, 0, 4, 4]), torch.tensor([4, 0, 8, 4])
    assert float(iou(left, right)) == 0.0
    assert float(inclusive_iou(left, right)) == pytest.approx(5 / 45)


def test_inclusive_iou_gives_the_benchmarks_published_values():
    a, b = torch.tensor([30, 50, 90, 100]), torch.tensor([60, 50, 120, 100])
    assert float(inclusive_iou(a, b)) == pytest.approx(0.340659, abs=1e-6)
    null, full = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 223, 223])
    assert float(inclusive_iou(null, full)) == pytest.approx(1.99e-5, rel=2e-3)


def test_iou_broadcasts_every_box_against_every_other():
    table = iou(torch.tensor([[0, 0, 2, 2], [1, 0, 3, 2]])[:, None], torch.tensor([[0, 0, 2, 2], [5, 5, 6, 6]])[None])
    torch.testing.assert_close(table, torch.tensor([[1.0, 0.0], [1 / 3, 0.0]], dtype=torch.float64))


def test_empty_boxes_have_no_overlap_and_nothing_found_stays_nan():
    empty = torch.zeros(4)
    assert float(iou(empty, empty)) == 0.0
    assert iou(torch.full((4,), torch.nan), torch.tensor([0.0, 0.0, 1.0, 1.0])).isnan()


def test_iou_says_which_box_is_no_box():
    with pytest.raises(ValueError, match=r"b must be \[..., 4\], got \[2, 3\]"):
        iou(torch.zeros(2, 4), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((87.0789, 101.0263, 383.9211, 207.3421), (360, 450), (43, 62, 191, 129)),
        ((7, 65, 442, 359), (360, 480), (3, 40, 206, 223)),
    ],
)
def test_scaled_boxes_truncate_to_the_benchmarks_golden_values(box, size, expected):
    assert scale_boxes(torch.tensor(box, dtype=torch.float64), size, (224, 224)).trunc().tolist() == list(expected)


@given(boxes, sizes, sizes)
def test_scaling_there_and_back_changes_nothing(box, one, other):
    there = scale_boxes(box, one, other)
    torch.testing.assert_close(scale_boxes(there, other, one), box.double())


def test_scaling_keeps_nan_and_the_type_of_floats():
    scaled = scale_boxes(torch.tensor([[torch.nan] * 4, [1, 2, 3, 4]]), (10, 10), (20, 40))
    assert scaled.dtype == torch.float32
    assert scaled[0].isnan().all()
    assert scaled[1].tolist() == [4, 4, 12, 8]


def test_scaling_refuses_an_empty_size():
    with pytest.raises(ValueError, match=r"from_size must be a \(height, width\) above zero, got \(0, 4\)"):
        scale_boxes(torch.zeros(4), (0, 4), (1, 1))


def test_clipping_cuts_to_the_frame_and_empties_what_lies_outside():
    cut = clip_boxes(torch.tensor([[-5.0, 2.0, 50.0, 7.0], [40.0, 1.0, 60.0, 2.0]]), (6, 30))
    assert cut.tolist() == [[0, 2, 30, 6], [30, 1, 30, 2]]


@given(boxes, sizes)
def test_clipping_twice_is_clipping_once(box, size):
    once = clip_boxes(box, size)
    assert torch.equal(clip_boxes(once, size), once)


def test_the_centre_box_has_half_of_each_side_and_the_full_box_all_of_it():
    assert tuple(centre_box((100, 200), 0.5)) == (50, 25, 150, 75)
    assert tuple(full_frame_box((100, 200))) == (0, 0, 200, 100)


def test_the_centre_box_refuses_a_fraction_that_gives_no_box():
    with pytest.raises(ValueError, match="side_fraction must be above 0 and at most 1, got 0"):
        centre_box((10, 10), 0)
