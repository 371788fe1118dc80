import numpy as np
import pytest

from pipelines.synthetic.shapes import BODY_COLOURS, CLASSES, DISTRACTORS

PLACES = np.meshgrid(*[np.linspace(-1.2, 1.2, 121, dtype=np.float32)] * 2)


@pytest.mark.parametrize("shape", CLASSES, ids=lambda shape: shape.name)
def test_an_outline_fills_its_box_and_is_small_enough_to_be_told_from_it(shape):
    u, v = PLACES
    inside = shape.outline(u, v) < 1
    assert 0.9 < np.abs(u[inside]).max() <= 1.05
    assert np.abs(v[inside]).max() <= 1.05
    assert 1.0 < shape.area() < 4.0


@pytest.mark.parametrize("shape", CLASSES, ids=lambda shape: shape.name)
def test_a_mark_lies_on_the_body_and_shows_body_between_its_lines(shape):
    u, v = PLACES
    assert shape.outline(*(np.float32([at]) for at in shape.mark_at))[0] < 1
    assert 0.1 < shape.pattern(u, v).mean() < 0.9


def test_a_colour_does_not_tell_the_class():
    users = [[shape.name for shape in CLASSES if colour in shape.body_colours] for colour in range(len(BODY_COLOURS))]
    assert all(len(names) >= 2 for names in users)
    assert len({shape.ink for shape in CLASSES}) == len(CLASSES)


def test_distractors_have_no_colour_of_a_body():
    assert not {colour for _, colours in DISTRACTORS for colour in colours} & set(BODY_COLOURS)
