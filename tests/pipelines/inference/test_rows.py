from pipelines.inference.rows import COLUMNS, as_dict, edges, printable, row_of
from tcam.types import Box, FrameBox


def test_a_row_has_a_value_for_every_column_and_rounded_numbers():
    found = FrameBox("a.mp4", 3, 0.1251234567, 1, 0.98765432, 0.5, Box(1.234, 2.0, 3.999, 8.0))
    row = as_dict(row_of(found, size=(24, 32), threshold=0.3))
    assert tuple(row) == COLUMNS
    assert (row["video"], row["frame"], row["time_s"]) == ("a.mp4", 3, 0.125123)
    assert (row["width"], row["height"]) == (32, 24)
    assert [row[side] for side in ("x0", "y0", "x1", "y1")] == [1.23, 2.0, 4.0, 8.0]
    assert (row["threshold"], row["status"]) == (0.3, "ok")


def test_a_frame_without_a_box_has_no_sides():
    row = as_dict(row_of(FrameBox("a.mp4", 0, 0.0, 0, 1.0, 0.0, None), size=(24, 32), threshold=0.3))
    assert {row[side] for side in ("x0", "y0", "x1", "y1")} == {None}
    assert row["status"] == "none"
    assert edges(None) is None


def test_a_name_that_is_no_text_can_be_written():
    name = b"a\xff.mp4".decode("utf-8", "surrogateescape")
    assert printable(name) == "a\\udcff.mp4"
    assert printable("käse.mp4") == "käse.mp4"
