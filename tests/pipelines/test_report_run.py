import dataclasses

import pytest
import torch

from pipelines.overlay import FOUND_COLOUR, TRUTH_COLOUR
from pipelines.report_run import draw_maps
from tests.pipelines.tiny import SIDE, tiny_localizer, whole_frame_truth


def draw(data, records, truth, names=("layercam",)):
    localizers = dict.fromkeys(names, tiny_localizer())
    thresholds = dict.fromkeys(names, 0.5)
    drawn = draw_maps(records, truth, localizers, thresholds, class_names=data.index.class_names, size=(SIDE, SIDE))
    return list(drawn)


def holds(picture: torch.Tensor, colour: tuple[int, int, int]) -> bool:
    return bool((picture == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(dim=0).any())


def test_the_frame_comes_first_with_the_true_box_alone_then_each_map_with_the_box_found(tiny_data):
    record = tiny_data.index.records[0]
    ((caption, picture),) = draw(tiny_data, [record], whole_frame_truth(tiny_data.index), ("layercam", "tcam"))
    assert caption == f"{record.video_id}, frame 5: as it is, layercam, tcam"
    height, width = record.size
    assert picture.shape == (3, height, 3 * width)
    panels = picture.split(width, dim=2)
    assert [holds(panel, TRUTH_COLOUR) for panel in panels] == [True, True, True]
    assert [holds(panel, FOUND_COLOUR) for panel in panels] == [False, True, True]


def test_the_middle_annotated_frame_is_drawn_or_else_the_middle_of_the_video(tiny_data):
    record = tiny_data.index.records[0]
    truth = whole_frame_truth(tiny_data.index, frames=(0, 1, 7))
    assert draw(tiny_data, [record], truth)[0][0].startswith(f"{record.video_id}, frame 1:")
    ((caption, _),) = draw(tiny_data, [record], [])
    assert caption.startswith(f"{record.video_id}, frame {record.num_frames // 2}:")


@pytest.mark.parametrize(("methods", "rows", "columns"), [(1, 1, 2), (3, 1, 4), (4, 2, 4), (7, 2, 4)])
def test_more_than_four_panels_start_a_new_row_filled_up_with_black(tiny_data, methods, rows, columns):
    record = tiny_data.index.records[0]
    height, width = record.size
    ((_, picture),) = draw(tiny_data, [record], tiny_data.truth, [f"method {i}" for i in range(methods)])
    assert picture.shape == (3, rows * height, columns * width)
    last = picture[:, -height:, -width:]
    assert bool(last.any()) == (rows * columns == methods + 1)


def test_a_video_that_cannot_be_read_is_left_out(tiny_data, tmp_path):
    first, second, *_ = tiny_data.index.records
    (tmp_path / "broken.mp4").write_text("no video")
    broken = dataclasses.replace(first, path=str(tmp_path / "broken.mp4"))
    ((caption, _),) = draw(tiny_data, [broken, second], tiny_data.truth)
    assert caption.startswith(second.video_id)
