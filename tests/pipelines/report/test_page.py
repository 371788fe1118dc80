import base64
import csv
import hashlib
import html.parser
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from pipelines.evaluation.results import read_evaluation
from pipelines.report.page import Sections, write_evaluation_report, write_report
from pipelines.report.pictures import Picture
from pipelines.report.tables import published_for
from tcam.errors import DataError
from tcam.metrics.corloc import CorLocResult
from tcam.types import CorLocProtocol
from tests.helpers.results import write_results

PIXELS = np.zeros((3, 30, 40), np.uint8)
PICTURE = Picture("one", (("tcam", PIXELS),))


def result(choice, *values, threshold=None) -> CorLocResult:
    names = ("cat", "dog", "on")[: len(values)]
    known = [value for value in values if not math.isnan(value)]
    return CorLocResult(
        protocol=CorLocProtocol(choice),
        threshold=threshold,
        per_class=dict(zip(names, values, strict=True)),
        macro=sum(known) / len(known),
        micro=12.5,
        num_frames=40,
        per_video={"cat/tom.mp4": 25.0},
        frames_per_class=dict.fromkeys(names, 20),
    )


ROWS = [
    ("full frame", result("none", 5.0, 0.0)),
    ("layercam", result("validation", 40.0, 61.0, threshold=0.35)),
    ("tcam", result("validation", 50.0, 61.5, threshold=0.4)),
    ("tcam", result("oracle", 60.0, 70.0, threshold=0.45)),
]


class Page(html.parser.HTMLParser):
    """Collects tags with their attributes, and text outside of scripts; checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def read(folder) -> Page:
    return Page((folder / "report" / "report.html").read_text(encoding="utf-8"))


def test_the_page_shows_every_figure_with_its_protocol(tmp_path):
    path = write_report(tmp_path, title="pets-001", rows=ROWS, protocol=["seed 0"], metadata={"seed": 0})
    assert path == tmp_path / "report" / "report.html"
    page = read(tmp_path)
    for text in (
        "pets-001",
        "layercam",
        "0.35 (validation)",
        "61.5",
        "65.0",
        "12.5",
        "seed 0",
        "cat/tom.mp4",
        "no map",
    ):
        assert text in page.text
    for _, row in ROWS:
        assert str(row.protocol) in page.text
    assert '"seed": 0' in page.text


def test_bars_are_as_long_as_the_figures_and_oracles_look_different(tmp_path):
    write_report(tmp_path, title="t", rows=ROWS)
    bars = [bar for bar in read(tmp_path).all("rect") if bar["class"] in ("none", "validation", "oracle")]
    assert [bar["width"] for bar in bars] == ["2.50%", "50.50%", "55.75%", "65.00%"]
    assert [bar["class"] for bar in bars] == ["none", "validation", "validation", "oracle"]


def test_the_large_figures_are_the_fair_ones_and_the_best_floor(tmp_path):
    write_report(tmp_path, title="t", rows=[("centre", result("none", 9.0, 1.0)), *ROWS])
    figures = (tmp_path / "report" / "report.html").read_text().split('<div class="figures">')[1].split("<section")[0]
    assert re.findall(r"<b>([^<]*)</b>", figures) == ["50.5", "55.8", "5.0"]
    assert figures.count("figure best") == 1


def test_without_validation_boxes_the_large_figure_is_named_an_oracle(tmp_path):
    write_report(tmp_path, title="t", rows=[ROWS[3]])
    assert "0.45 (oracle)" in read(tmp_path).text.split("CorLoc, mean over classes")[0]


def test_classes_without_frames_are_a_dash(tmp_path):
    write_report(tmp_path, title="t", rows=[("tcam", result("validation", 50.0, math.nan, 10.0, threshold=0.4))])
    page = read(tmp_path)
    assert "–" in page.text
    assert "nan" not in page.text.lower()
    with (tmp_path / "report" / "table.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["dog"] == ""


def test_nothing_scored_says_what_is_missing(tmp_path):
    write_report(tmp_path, title="t", rows=[], pictures=[PICTURE])
    page = read(tmp_path)
    assert "Nothing was scored" in page.text
    assert "boxes.csv" in page.text
    assert len(page.all("img")) == 1
    assert not (tmp_path / "report" / "table.csv").exists()


def test_pictures_lie_inside_the_page_and_have_words_beside_them(tmp_path):
    write_report(tmp_path, title="t", rows=ROWS, pictures=iter([PICTURE, replace(PICTURE, caption="two")]))
    images = read(tmp_path).all("img")
    assert [image["alt"] for image in images] == ["one: tcam", "two: tcam"]
    assert all(image["src"].startswith("data:image/webp;base64,") for image in images)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.md", "table.csv"]


def test_the_video_is_copied_beside_the_page_or_used_where_it_is(tmp_path):
    video = tmp_path / "über 1%.mp4"
    video.write_bytes(b"mp4")
    write_report(tmp_path, title="t", rows=ROWS, video=video)
    assert (tmp_path / "report" / video.name).read_bytes() == b"mp4"
    assert read(tmp_path).all("video")[0]["src"] == "%C3%BCber%201%25.mp4"
    write_report(tmp_path, title="t", rows=ROWS, video=tmp_path / "report" / video.name)
    assert (tmp_path / "report" / video.name).read_bytes() == b"mp4"


def test_names_from_outside_cannot_become_markup(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    hostile = replace(ROWS[1][1], per_class={evil: 1.0}, frames_per_class={evil: 3}, per_video={evil: 1.0})
    write_report(
        tmp_path,
        title=evil,
        rows=[(evil, hostile)],
        pictures=[Picture(evil, ((evil, PIXELS),))],
        protocol=[evil],
        metadata={evil: evil},
        lead=evil,
    )
    page = read(tmp_path)
    assert len(page.all("script")) == 1  # its own
    assert [image["src"][:11] for image in page.all("img")] == ["data:image/"]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert evil in page.text
    assert "<script>" not in (tmp_path / "report" / "report.md").read_text()


def test_the_page_fetches_nothing_and_its_policy_allows_only_its_own_style_and_script(tmp_path):
    write_report(tmp_path, title="t", rows=ROWS, pictures=[PICTURE])
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    page = read(tmp_path)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "http:" not in text
    assert "https:" not in text
    assert not any("style" in attributes for _, attributes in page.tags)  # the policy would drop them


def test_published_figures_stand_in_the_table_by_class_and_are_named_as_such(tmp_path):
    evaluation = read_evaluation(write_results(tmp_path / "evaluation"))
    sections = Sections(published=published_for("yto_v1", evaluation.class_names))
    write_evaluation_report(tmp_path / "report", "t", evaluation, sections)
    text = (tmp_path / "report" / "report.html").read_text()
    row = next(row for row in text.split("<tr") if "CoLo-CAM + LayerCAM" in row)
    assert row.startswith(' class="published"><td>CoLo-CAM + LayerCAM<small>published</small>')
    assert re.findall(r">([\d.]+)</td>", row) == ["78.7", "89.1", "82.1"]
    assert "arXiv:2303.09044" in read(tmp_path).text


def test_a_picture_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"panel 'tcam' must be uint8 \[3, H, W\], got \[30, 40\]"):
        write_report(tmp_path, title="t", rows=ROWS, pictures=[Picture("one", (("tcam", PIXELS[0]),))])


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"^cannot write .*report: .*; choose another folder$"):
        write_report(tmp_path / "file", title="t", rows=ROWS)
