import sys
from dataclasses import replace

import numpy as np
import pytest

from tcam.errors import MissingPartError
from tcam.types import Box, FrameBox

FOUND = FrameBox("a.mp4", 3, 0.12, 2, class_score=0.75, score=0.5, box=Box(10, 20, 40, 60))


def test_a_box_goes_to_the_supervision_package_which_draws_it():
    supervision = pytest.importorskip("supervision")
    detections = FOUND.to_supervision()
    np.testing.assert_array_equal(detections.xyxy, [[10, 20, 40, 60]])
    assert (detections.confidence[0], detections.class_id[0], detections.data["class_score"][0]) == (0.5, 2, 0.75)
    drawn = supervision.BoxAnnotator(thickness=1).annotate(np.zeros((80, 80, 3), np.uint8), detections)
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (columns.min(), rows.min()) == (10, 20)
    assert (columns.max(), rows.max()) == (40, 60)


def test_a_frame_without_a_box_becomes_no_detection():
    pytest.importorskip("supervision")
    assert len(replace(FOUND, box=None).to_supervision()) == 0


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPartError, match="pip install supervision"):
        FOUND.to_supervision()
