import numpy as np
import pytest

from pipelines.inference.overlay import FOUND_COLOUR, TRUTH_COLOUR, draw_overlay, line_width
from tcam.types import Box

GREY = np.full((3, 90, 120), 128, np.uint8)
BOX = Box(20, 30, 80, 70)


def of_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)[:, None, None]).all(axis=0)


def test_nothing_to_draw_changes_nothing():
    drawn = draw_overlay(GREY, None)
    assert np.array_equal(drawn, GREY)
    assert not np.shares_memory(drawn, GREY)


def test_the_box_found_is_a_line_just_inside_its_half_open_bounds():
    ys, xs = of_colour(draw_overlay(GREY, BOX), FOUND_COLOUR).nonzero()
    assert (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1) == tuple(BOX)
    inside = of_colour(draw_overlay(GREY, BOX), FOUND_COLOUR)[33:67, 23:77]
    assert not inside.any()


def test_true_boxes_are_dashed_and_lie_under_the_box_found():
    drawn = of_colour(draw_overlay(GREY, None, truth=[BOX]), TRUTH_COLOUR)
    edge = drawn[30, 20:80]
    assert edge.any()
    assert not edge.all()
    assert np.array_equal(draw_overlay(GREY, BOX, truth=[BOX])[:, 30, 20:80], draw_overlay(GREY, BOX)[:, 30, 20:80])


def test_every_true_box_is_drawn():
    drawn = of_colour(draw_overlay(GREY, None, truth=[BOX, Box(90, 5, 110, 20)]), TRUTH_COLOUR)
    assert drawn[30, 20]
    assert drawn[5, 90]


def test_the_heat_is_strong_where_the_map_is_and_absent_where_it_is_zero():
    heat = np.zeros((6, 8))
    heat[2:4, 3:5] = 1
    changed = np.abs(draw_overlay(GREY, None, map=heat).astype(int) - GREY).sum(axis=0)
    assert changed[45, 60] > 100
    assert (changed[:10] == 0).all()
    assert (changed[:, :15] == 0).all()


def test_a_stronger_map_gives_a_warmer_colour():
    reds = [int(draw_overlay(GREY, None, map=np.full((2, 2), v))[0, 40, 40]) for v in (0.2, 0.5, 0.8, 1.0)]
    assert reds == sorted(reds)
    assert reds[0] < reds[-1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_maps_of_any_float_and_size_are_stretched_over_the_frame(dtype):
    drawn = draw_overlay(GREY, None, map=np.ones((200, 3), dtype))
    assert drawn.shape == GREY.shape
    assert (drawn == drawn[:, :1, :1]).all()


def test_a_caption_stands_on_a_dark_plate_in_the_corner():
    drawn = draw_overlay(GREY, None, caption="dog 0.93")
    assert int(drawn[:, :20].min(axis=0).max()) > 200  # bright letters (their rims are blended with the plate)
    assert drawn[:, 0, 0].tolist() == [16, 16, 20]
    assert np.array_equal(drawn[:, 40:], GREY[:, 40:])


@pytest.mark.parametrize("caption", ["a very long caption " * 20, "two\nlines", "ünïcödé", " "])
def test_captions_of_any_kind_fit_the_frame(caption):
    drawn = draw_overlay(GREY, None, caption=caption)
    assert drawn.shape == GREY.shape
    assert np.array_equal(drawn[:, 60:], GREY[:, 60:])


@pytest.mark.parametrize("box", [Box(0, 0, 120, 90), Box(-5, -5, 300, 300), Box(3, 3, 3.2, 3.4), Box(119, 89, 120, 90)])
def test_boxes_at_and_beyond_the_border_and_tiny_ones_are_drawn(box):
    assert of_colour(draw_overlay(GREY, box, truth=[box]), FOUND_COLOUR).any() or box.x1 > 120


def test_one_pixel_frames_survive():
    tiny = np.zeros((3, 1, 1), np.uint8)
    assert draw_overlay(tiny, Box(0, 0, 1, 1), map=np.ones((1, 1)), caption="x").shape == (3, 1, 1)


def test_lines_grow_with_the_frame():
    assert [line_width(*size) for size in ((60, 80), (240, 428), (480, 640), (1080, 1920))] == [1, 2, 3, 6]


def test_frames_that_are_not_uint8_rgb_are_refused():
    with pytest.raises(ValueError, match=r"frame must be uint8 \[3, H, W\], got float32 \[3, 4, 4\]"):
        draw_overlay(np.zeros((3, 4, 4), np.float32), None)
    with pytest.raises(ValueError, match=r"got uint8 \[4, 4, 3\]"):
        draw_overlay(np.zeros((4, 4, 3), np.uint8), None)
    with pytest.raises(ValueError, match=r"map must be \[h, w\], got \[1, 4, 4\]"):
        draw_overlay(GREY, None, map=np.zeros((1, 4, 4)))
