import csv
import io
from contextlib import suppress
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcam.errors import DataError
from tcam.video.data_folder.box_columns import BOX_COLUMNS
from tcam.video.data_folder.tables import CLIP_COLUMNS, Row, as_frame, as_split, find_columns, read_table

REQUIRED = ("video", "class")
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": b"",
    "utf-16-be": b"",
    "UTF-16LE": b"\xff\xfe",
    "UTF-16BE": b"\xfe\xff",
}
"""Encodings and what Python does not write by itself: the mark of UTF-16 with a byte order."""


def read(folder, content, *, columns=CLIP_COLUMNS, required=REQUIRED):
    path = folder / "clips.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, columns, required=required)


def values(table):
    return [row.values for row in table.rows]


@pytest.mark.slow
@given(data=st.data())
def test_a_table_in_any_spelling_gives_the_same_rows(tmp_path_factory, data):
    cell = st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")) | st.sampled_from(" ,;|\t\"'"),
        max_size=8,
    )
    name = cell.filter(lambda text: text.strip() and not text.startswith("#"))
    rows = data.draw(st.lists(st.tuples(name, cell, cell), max_size=4))
    header = [
        data.draw(st.sampled_from([column, *others])).replace("_", data.draw(st.sampled_from(["_", " ", "-", ".", ""])))
        for column, others in CLIP_COLUMNS.items()
    ]
    recase = data.draw(st.sampled_from([str, str.upper, str.title, " {} ".format]))
    delimiter = data.draw(st.sampled_from(",;\t|"))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=data.draw(st.sampled_from(["\n", "\r\n", "\r"])))
    writer.writerows([[recase(cell) for cell in header], *rows])
    before = data.draw(st.sampled_from(["", f"sep={delimiter}\r\n", "# made, by; me\n\n"]))
    encoding = data.draw(st.sampled_from(list(ENCODINGS)))
    content = ENCODINGS[encoding] + (before + text.getvalue()).encode(encoding)
    table = read(tmp_path_factory.mktemp("table"), content)
    assert table.columns == {column: recase(cell).strip() for column, cell in zip(CLIP_COLUMNS, header, strict=True)}
    expected = [[normalize("NFC", text.strip()) for text in row] for row in rows]
    assert values(table) == [dict(zip(CLIP_COLUMNS, row, strict=True)) for row in expected]
    assert find_columns(table.path, CLIP_COLUMNS) == table.columns


def test_text_stays_text_and_lines_without_any_are_skipped(tmp_path):
    content = "\n# note\nvideo,class,Split,extra\na.mp4,007,no,1\n,,,\n\n#b.mp4,on\nc.mp4,NaN\n d.mp4 , on ,test,,,\n"
    table = read(tmp_path, content)
    assert table.columns == {"video": "video", "class": "class", "split": "Split"}
    assert table.unused == ("extra",)
    assert [(row["video"], row["class"], row["split"]) for row in table.rows] == [
        ("a.mp4", "007", "no"),
        ("c.mp4", "NaN", ""),
        ("d.mp4", "on", "test"),
    ]
    assert [row.where for row in table.rows] == [f"{table.path}, line {line}" for line in (4, 8, 9)]


def test_cells_may_hold_any_delimiter_and_a_table_of_one_column_has_none(tmp_path):
    assert values(read(tmp_path, 'video;class\na, b.mp4;"dog; wolf"\n')) == [
        {"video": "a, b.mp4", "class": "dog; wolf"}
    ]
    assert values(read(tmp_path, "file name (a; b or c),video,class\n,a;b.mp4,dog"))[0]["video"] == "a;b.mp4"
    assert values(read(tmp_path, "video\na,b;c.mp4\n", required=("video",))) == [{"video": "a,b;c.mp4"}]


def test_the_preferred_of_two_names_is_used_and_the_other_is_listed(tmp_path):
    table = read(tmp_path, "id,label,Filename,note,video,split_2\n1,0,x,y,a.mp4,\n")
    assert table.columns == {"video": "video", "class": "label"}
    assert table.unused == ("id", "Filename", "note", "split_2")
    assert values(table) == [{"video": "a.mp4", "class": "0"}]


def test_names_are_composed_and_old_encodings_are_read(tmp_path):
    assert values(read(tmp_path, "video,class\ne\u0301.mp4,dog\n"))[0]["video"] == "é.mp4"
    assert values(read(tmp_path, "video;class\nHündin.mp4;Größe\n".encode("cp1252"))) == [
        {"video": "Hündin.mp4", "class": "Größe"}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"clips\.csv: expected the columns video, class, found nothing \(video may be called path, filename, "),
        ("a,b\nc,d", r"expected the columns video, class, found a, b \(.*; class may be called class_name, tag, "),
        ("name,b\nc,d", r"expected the columns video, class, found name, b \(class may be called"),
        ("video,class,split,Split\na,b,c,d", r"clips\.csv, line 1: expected one column split, found 'split' twice"),
        ("video,class\na,b.mp4,dog", r"clips\.csv, line 2: expected 2 cells as in the header, found 3; .* quotes"),
        ('video,class\na,b\n"c,d\ne,f\n', r"clips\.csv, line 3: expected cells with closed quotes"),
        ('"video,class\na,b\n', r"clips\.csv, line 1: expected cells with closed"),
        ("video,class\n,dog\n", r"clips\.csv, line 2: expected the name of a video, found an empty cell"),
        (b"PK\x03\x04\x00\x00\xd8\x00\xd8\x00", r"clips\.csv is not a table of text: save it as CSV in UTF-8$"),
        (b"video,class\na\x81\xff,dog", r"clips\.csv is not a table of text"),
        (b"video,class\na\0,dog", r"clips\.csv is not a table of text"),
        (b"\xff\xfe\x00bad", r"clips\.csv: expected the columns video, class, found .* "),
    ],
)
def test_what_is_no_table_is_named_in_one_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.csv \(No such file"):
        read_table(tmp_path / "none.csv", CLIP_COLUMNS, required=REQUIRED)
    assert find_columns(tmp_path / "none.csv", CLIP_COLUMNS) == {}
    assert find_columns(tmp_path, CLIP_COLUMNS) == {}


@given(st.binary(max_size=200))
def test_junk_is_no_table_or_an_error_of_ours(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("junk") / "clips.csv"
    path.write_bytes(content)
    assert find_columns(path, CLIP_COLUMNS).keys() <= CLIP_COLUMNS.keys()
    with suppress(DataError):
        read_table(path, CLIP_COLUMNS, required=REQUIRED)


def test_columns_are_found_in_the_head_of_a_long_file(tmp_path):
    (tmp_path / "long.csv").write_text("Video;Größe;Klasse;Label\n" + "é;ü;ö;ä\n" * 9000, encoding="utf-8")
    assert find_columns(tmp_path / "long.csv", CLIP_COLUMNS) == {"video": "Video", "class": "Label"}
    (tmp_path / "wide.csv").write_text('video,class\n"' + "x" * 200_000, encoding="utf-8")
    assert find_columns(tmp_path / "wide.csv", CLIP_COLUMNS) == {"video": "video", "class": "class"}


@pytest.mark.parametrize("columns", [CLIP_COLUMNS, BOX_COLUMNS])
def test_no_header_means_two_columns(columns):
    names = [name.replace("_", "") for column, others in columns.items() for name in (column, *others)]
    assert sorted(names) == sorted(set(names))


def test_splits_are_named_in_the_usual_words():
    words = {
        "train": ("train", "Training", "TR"),
        "val": ("val", "valid", "Validation", "dev"),
        "test": ("test", "TESTING"),
        None: ("",),
    }
    for split, texts in words.items():
        assert [as_split(Row("here", {"split": text})) for text in texts] == [split] * len(texts)
    assert as_split(Row("here", {"set": "Test"}), "set") == "test"
    with pytest.raises(DataError, match=r"^here, line 3: split must be one of train, val, test, got 'x'$"):
        as_split(Row("here, line 3", {"split": "x"}))


def test_a_frame_is_a_whole_number_however_it_is_written():
    for text in ("12", "0012", "12.", "12.0", "12.000000", "12,0"):
        assert as_frame(Row("here", {"frame": text})) == 12
    for text in ("", "-1", "1.5", "1,000", "1e3", "²", "nan", "9" * 5000):
        with pytest.raises(DataError, match=r"^here: frame must be a whole number from 0 on, got '"):
            as_frame(Row("here", {"frame": text}))
