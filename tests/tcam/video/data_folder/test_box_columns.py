import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcam.errors import DataError
from tcam.video.data_folder.box_columns import UNITS, read_box_table, to_pixels

SIZE = (50, 200)


def read(folder, content):
    path = folder / "boxes.csv"
    path.write_text(content)
    return read_box_table(path)


def corners(folder, content):
    return [box.corners for box in read(folder, content).boxes]


LAYOUTS = {
    "x0,y0,x1,y1": "2,4,8,12",
    "X1,Y1,X2,Y2": "2,4,8,12",
    "xmin,ymin,xmax,ymax": "2,4,8,12",
    "x_min,y_min,x_max,y_max": "2,4,8,12",
    "ymax,xmax,ymin,xmin": "12,8,4,2",
    "left,top,right,bottom": "2,4,8,12",
    "bbox_x1,bbox_y1,bbox_x2,bbox_y2": "2,4,8,12",
    "x,y,w,h": "2,4,6,8",
    "x,y,width,height": "2,4,6,8",
    "Left,Top,Width,Height": "2,4,6,8",
    "bbox_x,bbox_y,bbox_w,bbox_h": "2,4,6,8",
    "bb left,bb top,bb width,bb height": "2,4,6,8",
    "x0,y0,w,h": "2,4,6,8",
    "xmin,ymin,width,height": "2,4,6,8",
    "cx,cy,w,h": "5,8,6,8",
    "x_center,y_center,width,height": "5,8,6,8",
    "centre x,centre y,w,h": "5,8,6,8",
}


@pytest.mark.parametrize("header", LAYOUTS)
def test_a_box_is_the_same_in_every_layout(tmp_path, header):
    table = read(tmp_path, f"video,Frame Index,{header}\na.mp4,12.0,{LAYOUTS[header]}\nb.mp4,3,,,,\n")
    assert [(box.row["video"], box.frame, box.corners, box.units) for box in table.boxes] == [
        ("a.mp4", 12, (2, 4, 8, 12), None),
        ("b.mp4", 3, None, None),
    ]
    assert table.table.unused == ()


@given(
    st.tuples(*[st.integers(0, 800)] * 2, *[st.integers(1, 800)] * 2),
    st.sampled_from(UNITS),
    st.sampled_from([",", ";"]),
)
def test_layouts_and_units_agree_in_pixels(tmp_path_factory, box, units, delimiter):
    """Eighths of a pixel in all layouts and units come back as the box they were made of."""
    x0, y0, width, height = (side / 8 for side in box)
    first = 1 if units == "pixels-from-1" else 0
    scale = {"relative": 1, "percent": 100}.get(units)
    across, down = (1, 1) if scale is None else (scale / SIZE[1], scale / SIZE[0])
    written = {
        "x0,y0,x1,y1": (x0 + first, y0 + first, x0 + width, y0 + height),
        "x,y,w,h": (x0 + first, y0 + first, width, height),
        "cx,cy,w,h": (x0 + width / 2 + first / 2, y0 + height / 2 + first / 2, width, height),
    }
    for header, (a, b, c, d) in written.items():
        path = tmp_path_factory.mktemp("boxes") / "boxes.csv"
        sides = [repr(side) for side in (a * across, b * down, c * across, d * down)]
        with path.open("w", newline="") as file:
            table = csv.writer(file, delimiter=delimiter)
            table.writerow(("video", "frame", *header.split(","), "units"))
            row = sides if delimiter == "," else [side.replace(".", ",") for side in sides]
            table.writerow(("a.mp4", 0, *row, units.upper()))
        (read_back,) = read_box_table(path).boxes
        assert read_back.units == units
        expected = pytest.approx((x0, y0, x0 + width, y0 + height))
        assert to_pixels(read_back.corners, read_back.units, SIZE) == expected


def test_units_become_pixels_by_hand():
    assert to_pixels((1, 2, 3, 4), "pixels", SIZE) == (1, 2, 3, 4)
    assert to_pixels((1, 1, 200, 50), "pixels-from-1", SIZE) == (0, 0, 200, 50)
    assert to_pixels((0.5, 0.5, 1, 1), "relative", SIZE) == (100, 25, 200, 50)
    assert to_pixels((50, 50, 100, 100), "percent", SIZE) == (100, 25, 200, 50)


def test_a_box_of_one_pixel_from_1_has_equal_corners(tmp_path):
    header = "video,frame,units,xmin,ymin,xmax,ymax\na,0,pixels-from-1,"
    (box,) = read(tmp_path, f"{header}5,7,5,7").boxes
    assert to_pixels(box.corners, box.units, SIZE) == (4, 6, 5, 7)
    with pytest.raises(DataError, match="expected a box"):
        read(tmp_path, f"{header}5,7,4,7")


def test_the_size_of_the_frame_beside_a_box_is_not_its_size(tmp_path):
    table = read(tmp_path, "video,frame,width,height,x0,y0,x1,y1,score\na,0,640,480,1,2,3,4,0.5\n")
    assert table.boxes[0].corners == (1, 2, 3, 4)
    assert table.table.unused == ("width", "height", "score")
    table = read(tmp_path, "video,frame,width,height,x,y,w,h\na,0,640,480,1,2,3,4\n")
    assert table.boxes[0].corners == (1, 2, 4, 6)
    assert table.table.unused == ("width", "height")


def test_sides_within_0_and_1_look_relative_where_nothing_was_said(tmp_path):
    header = "video,frame,cx,cy,w,h,units\n"
    small = "a,0,0.9,0.5,0.25,1,"
    assert read(tmp_path, f"{header}{small}\na,1,,,,,\n").looks_relative
    assert read(tmp_path, f"{header}{small}\na,1,50,50,20,20,pixels\n").looks_relative
    assert not read(tmp_path, f"{header}{small}\na,1,1,2,1,1,\n").looks_relative
    assert not read(tmp_path, f"{header}{small}\na,1,-0.1,0.5,1,1,\n").looks_relative
    assert not read(tmp_path, f"{header}{small}relative\n").looks_relative
    assert not read(tmp_path, f"{header}a,0,,,,,\n").looks_relative
    assert not read(tmp_path, header).looks_relative


def test_numbers_may_have_exponents_and_decimal_commas(tmp_path):
    assert corners(tmp_path, "video,frame,x0,y0,x1,y1\na,0,.5,1e0,1e2,2.5\n") == [(0.5, 1, 100, 2.5)]
    assert corners(tmp_path, "video;frame;x0;y0;x1;y1\na;0;,5;1,25;1e2;2.5\n") == [(0.5, 1.25, 100, 2.5)]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("x0,y0,x1,y1", "5,0,1,1", r"\(got x0 5, y0 0, x1 1, y1 1; if x1 and y1 are its width and height, call"),
        (
            "left,top,right,bottom",
            "5,9,7,3",
            r"\(got left 5, .*; if right and bottom are its width and height, call them w and h\)",
        ),
        ("x0,y0,x1,y1", "5,0,-1,1", r"\(got x0 5, y0 0, x1 -1, y1 1\)$"),
        ("x,y,w,h", "5,5,0,2", r"\(got x 5, y 5, w 0, h 2\)$"),
        ("x0,y0,x1,y1", "1,,3,4", r"\(could not convert string to float: ''\)"),
        ("x0,y0,x1,y1", "left,0,3,4", r"\(could not convert string to float: 'left'\)"),
        ("x0,y0,x1,y1", "nan,0,3,4", r"\(got x0 nan, y0 0, x1 3, y1 4"),
        ("x0,y0,x1,y1", "0,0,inf,4", r"\(got x0 0, y0 0, x1 inf, y1 4"),
        ("cx,cy,w,h", "inf,0,inf,4", r"\(got cx inf, cy 0, w inf, h 4\)"),
        ("x0,y0,x1,y1", '"1,0",0,3,4', r"\(could not convert string to float: '1,0'"),
    ],
)
def test_a_row_that_is_no_box_names_file_and_line(tmp_path, header, row, message):
    with pytest.raises(DataError, match=rf"boxes\.csv, line 2: expected a box with x0 < x1 and y0 < y1 {message}"):
        read(tmp_path, f"video,frame,{header}\na,0,{row}\n")


@pytest.mark.parametrize("frame", ["-1", "1.5", "", "x"])
def test_a_frame_that_is_no_whole_number_is_named(tmp_path, frame):
    with pytest.raises(DataError, match=r"boxes\.csv, line 2: frame must be a whole number from 0 on"):
        read(tmp_path, f"video,frame,x0,y0,x1,y1\na,{frame},1,2,3,4\n")


def test_unknown_units_are_answered_with_the_known_ones(tmp_path):
    message = r"boxes\.csv, line 2: units must be one of pixels, pixels-from-1, relative, percent, got 'cm'"
    with pytest.raises(DataError, match=message):
        read(tmp_path, "video,frame,x0,y0,x1,y1,Unit\na,0,1,2,3,4,cm\n")


@pytest.mark.parametrize(
    "header",
    [
        "x0,y0,xmax,ymax",
        "x,y,x1,y1",
        "x0,y0,x1,y2,width,height",
        "x0,y0,x1,y1,x2,y2,x3,y3",
        "x0,y0,x1,y1,x,y,w,h",
        "x,y,w,height",
        "x,y,cx,cy,w,h",
        "x,y",
        "class,score",
    ],
)
def test_a_mixed_layout_is_answered_with_the_known_ones(tmp_path, header):
    message = (
        r"boxes\.csv: expected the columns video, frame and those of one layout \(x0,y0,x1,y1, .*left,top,right,"
        rf"bottom, x,y,w,h, cx,cy,w,h\), found video, frame, .*{header.split(',')[-1]}"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, f"video,frame,{header}\n")


@pytest.mark.parametrize("header", ["video,x0,y0,x1,y1", "frame,x0,y0,x1,y1", "video", "id,frame,x0,y0,x1,y1", ""])
def test_a_table_of_boxes_needs_video_and_frame(tmp_path, header):
    with pytest.raises(DataError, match=r"boxes\.csv: expected the columns video, frame.*, found "):
        read(tmp_path, header)


def test_a_missing_table_of_boxes_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*boxes\.csv"):
        read_box_table(tmp_path / "boxes.csv")
