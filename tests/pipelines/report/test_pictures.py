import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipelines.evaluation.results import read_evaluation
from pipelines.report.pictures import Picture, choose_frames, embed_pictures
from tests.helpers.results import write_results


def shown(groups):
    return {name: [(chosen.video, chosen.frame) for chosen in frames] for name, frames in groups.items()}


def test_worst_median_and_best_frames_come_from_different_videos_where_they_can(tmp_path):
    groups = choose_frames(read_evaluation(write_results(tmp_path)), each=2)
    assert shown(groups) == {
        "Worst": [("dog/rex.mp4", 0), ("dog/bo.mp4", 5)],  # IoU 0, 0.4
        "Median": [("cat/tom.mp4", 0), ("dog/bo.mp4", 0)],  # 0.6, 0.6
        "Best": [("cat/tom.mp4", 15), ("dog/rex.mp4", 10)],  # 0.9, 0.8
    }
    assert groups["Best"][0].rows["layercam"]["iou"] == 0.6


def test_no_frame_is_shown_twice(tmp_path):
    groups = shown(choose_frames(read_evaluation(write_results(tmp_path)), each=4))
    frames = [key for keys in groups.values() for key in keys]
    assert len(frames) == len(set(frames)) == 9
    assert [len(keys) for keys in groups.values()] == [4, 4, 1]


def test_panels_are_small_pictures_inside_the_page():
    wide = np.full((3, 100, 960), 200, np.uint8)
    ((entry),) = embed_pictures([Picture("a frame", (("tcam", wide),))])
    (panel,) = entry["panels"]
    assert (entry["caption"], panel["label"], panel["width"], panel["height"]) == ("a frame", "tcam", 480, 50)
    kind, text = panel["source"].split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        assert picture.size == (480, 50)
        assert abs(picture.convert("RGB").getpixel((9, 9))[0] - 200) < 4


def test_a_panel_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"panel 'tcam' must be uint8 \[3, H, W\], got \[4, 4\]"):
        embed_pictures([Picture("a", (("tcam", np.zeros((4, 4), np.uint8)),))])
