import base64
import csv
import hashlib
import html.parser
import math
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pipelines.report import write_report
from tcam.errors import DataError
from tcam.localization.corloc import CorLocResult
from tcam.types import CorLocProtocol

PICTURE = torch.zeros(3, 30, 40, dtype=torch.uint8)


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
    """Collects tags with their attributes, and text; checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
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
    bars = read(tmp_path).all("rect")
    assert [bar["width"] for bar in bars] == ["2.50%", "50.50%", "55.75%", "65.00%"]
    assert [bar["class"] for bar in bars] == ["none", "validation", "validation", "oracle"]


def test_the_best_of_a_column_is_marked_but_never_an_oracle(tmp_path):
    write_report(tmp_path, title="t", rows=ROWS)
    text = (tmp_path / "report" / "report.html").read_text()
    assert re.findall(r'<td class="[^"]*\btop\b[^"]*">([^<]*)</td>', text) == [
        "12.5",
        "12.5",
        "50.0",
        "61.5",
        "55.8",
        "12.5",
    ]


def test_the_large_figures_are_the_fair_ones_and_the_best_floor(tmp_path):
    write_report(tmp_path, title="t", rows=[("centre", result("none", 9.0, 1.0)), *ROWS])
    figures = (tmp_path / "report" / "report.html").read_text().split('<div class="figures">')[1].split("<section>")[0]
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
    write_report(tmp_path, title="t", rows=[], pictures=[("a", PICTURE)])
    page = read(tmp_path)
    assert "Nothing was scored" in page.text
    assert "boxes.csv" in page.text
    assert len(page.all("img")) == 1
    assert not (tmp_path / "report" / "table.csv").exists()


def test_the_table_is_also_csv_and_markdown(tmp_path):
    write_report(tmp_path, title="t", rows=ROWS, protocol=["seed 0"])
    with (tmp_path / "report" / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == ["full frame", "layercam", "tcam", "tcam"]
    assert rows[1] == {
        "method": "layercam",
        "threshold": "0.35",
        "cat": "40.00",
        "dog": "61.00",
        "mean over classes": "50.50",
        "over frames": "12.50",
        "frames": "40",
        "protocol": "CorLoc, IoU >= 0.5, largest component, map threshold: validation",
    }
    lines = (tmp_path / "report" / "table.md").read_text().splitlines()
    assert lines[0] == "| method | map threshold | cat | dog | mean | over frames |"
    assert lines[3] == "| layercam | 0.35 (validation) | 40.0 | 61.0 | 50.5 | 12.5 |"
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert lines[-1] == "* seed 0"


def test_pictures_lie_beside_the_page_and_old_ones_go(tmp_path):
    write_report(tmp_path, title="t", rows=ROWS, pictures=[("one", PICTURE), ("two", PICTURE + 200)])
    sources = [image["src"] for image in read(tmp_path).all("img")]
    assert sources == ["pictures/000.jpg", "pictures/001.jpg"]
    with Image.open(tmp_path / "report" / sources[1]) as picture:
        assert picture.size == (40, 30)
        assert min(picture.getpixel((5, 5))) > 190
    write_report(tmp_path, title="t", rows=ROWS, pictures=iter([("one", PICTURE)]))
    assert [path.name for path in (tmp_path / "report" / "pictures").iterdir()] == ["000.jpg"]


@pytest.mark.parametrize(("width", "expected"), [(40, "pictures"), (90, "pictures wide")])
def test_panels_side_by_side_get_more_room(tmp_path, width, expected):
    write_report(tmp_path, title="t", rows=ROWS, pictures=[("one", torch.zeros(3, 30, width, dtype=torch.uint8))])
    assert expected in [block.get("class") for block in read(tmp_path).all("div")]


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
    rows = [(evil, hostile)]
    write_report(
        tmp_path, title=evil, rows=rows, pictures=[(evil, PICTURE)], protocol=[evil], metadata={evil: evil}, lead=evil
    )
    page = read(tmp_path)
    assert not page.all("script")
    assert [image["src"] for image in page.all("img")] == ["pictures/000.jpg"]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert evil in page.text


def test_a_pipe_in_a_name_does_not_break_the_markdown_table(tmp_path):
    write_report(tmp_path, title="t", rows=[("a|b", ROWS[1][1])])
    assert "| a\\|b | 0.35" in (tmp_path / "report" / "table.md").read_text()


def test_the_page_fetches_nothing_and_its_policy_allows_only_its_own_style(tmp_path):
    write_report(tmp_path, title="t", rows=ROWS, pictures=[("one", PICTURE)])
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    page = read(tmp_path)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "http:" not in text
    assert "https:" not in text
    assert not any("style" in attributes for _, attributes in page.tags)  # the policy would drop them


def test_rows_of_different_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rows must share their classes"):
        write_report(tmp_path, title="t", rows=[ROWS[0], ("other", result("none", 1.0))])


def test_a_picture_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"picture 'one' must be uint8 \[3, H, W\], got \[30, 40\]"):
        write_report(tmp_path, title="t", rows=ROWS, pictures=[("one", PICTURE[0])])


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"^cannot write .*report: .*; choose another folder$"):
        write_report(tmp_path / "file", title="t", rows=ROWS)


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_opens_the_page_from_disk_without_complaint(tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    write_report(tmp_path, title="t", rows=ROWS, pictures=[("one", torch.full_like(PICTURE, 255))])
    shot = tmp_path / "shot.png"
    flags = ["--no-sandbox", "--headless", "--disable-gpu", "--enable-logging=stderr", "--window-size=1200,1600"]
    done = subprocess.run(
        [
            browser,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={shot}",
            (tmp_path / "report/report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Content Security Policy" not in done.stderr
    with Image.open(shot) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert (11, 114, 133) in colours or (59, 201, 219) in colours  # a bar in the accent colour: the style was applied
