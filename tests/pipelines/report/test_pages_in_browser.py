"""The pages in a real browser: nothing is fetched, nothing complains, tables sort, charts answer the pointer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.evaluation.results import read_evaluation
from pipelines.report.check_sections import check_sections, tag_choice_section
from pipelines.report.checks import Checks
from pipelines.report.compare import compare_runs
from pipelines.report.compare_page import write_comparison_page
from pipelines.report.page import Sections, write_evaluation_report
from pipelines.report.pictures import Picture
from pipelines.report.sections import overlap_chart, size_chart, threshold_charts, training_charts, trajectory_charts
from tests.helpers.results import OVERLAPS, write_run
from tests.pipelines.report.test_check_sections import REASONS, check

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVIL = "<script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Give the page of a run with a hostile video name, and a comparison of two runs."""
    folder = tmp_path_factory.mktemp("pages")
    overlaps = {name: {**videos, f"dog/{EVIL}": [0.3, 0.6, 0.7]} for name, videos in OVERLAPS.items()}
    run = write_run(folder / "tcam-seed0-001", overlaps)
    evaluation = read_evaluation(run / "evaluation")
    panel = np.full((3, 40, 60), 90, np.uint8)
    sections = Sections(
        thresholds=threshold_charts(evaluation),
        overlaps=overlap_chart(evaluation),
        sizes=size_chart(evaluation),
        trajectories=trajectory_charts(evaluation),
        training=training_charts(run),
        gallery={"Worst": [Picture(EVIL, (("tcam", panel),))]},
        details={"Settings": EVIL},
        tag_choice=tag_choice_section(REASONS, method="tcam", thresholds={}, chosen_on="tags"),
        checks=check_sections(
            Checks("tcam", 0.5, [check(EVIL, "dog", 0.2, "cat"), check("b", "cat", 0.9, "cat")], [], 2, 2)
        ),
    )
    other = write_run(folder / "tcam-seed1-001", overlaps, "seed=1")
    base = write_run(folder / "cam", {k: v for k, v in overlaps.items() if k != "tcam"}, "method=cam")
    return {
        "report": write_evaluation_report(folder / "report", f"tcam {EVIL}", evaluation, sections),
        "compare": write_comparison_page(folder / "compare", compare_runs([base, run, other])),
    }


class Opened:
    """A page and everything it said and asked for."""

    def __init__(self, browser, path: Path, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]


@pytest.fixture(params=["report", "compare"])
def opened(request, browser, pages) -> Iterator[Opened]:
    found = Opened(browser, pages[request.param])
    yield found
    found.page.close()


@pytest.fixture
def report(browser, pages) -> Iterator[Opened]:
    found = Opened(browser, pages["report"])
    yield found
    found.page.close()


def test_the_page_fetches_nothing_says_nothing_and_no_name_runs(opened):
    opened.page.wait_for_load_state("networkidle")
    assert [url for url in opened.asked if not url.startswith(("data:", "file:"))] == []
    assert [url for url in opened.asked if url.startswith("file:")] == [opened.page.url]
    assert opened.said == []
    assert opened.page.title() != "taken"
    assert EVIL in opened.page.content().replace("&lt;", "<").replace("&gt;", ">")


def test_tables_charts_and_pictures_are_there_and_drawn(report):
    assert report.page.locator("#headline tbody tr").count() == 5
    assert report.page.locator("#classes tbody tr").count() == 5
    for name, charts in (
        ("thresholds", 3),
        ("frames", 2),
        ("trajectories", 6),
        ("training", 3),
        ("tag-choice", 1),
        ("steadiness", 1),
    ):
        plots = report.page.locator(f"#{name} .plot > svg")
        assert plots.count() == charts
        assert all(plots.nth(i).bounding_box()["width"] > 100 for i in range(charts))
    line = report.page.locator("#thresholds .lines").first
    assert line.evaluate("part => getComputedStyle(part).stroke") == "rgb(11, 114, 133)"  # the style was applied
    assert report.page.locator("#sheet img").count() == 2
    assert report.page.locator("#tags tbody tr").count() == 1
    assert report.page.locator("#gallery img").evaluate("picture => picture.naturalWidth") == 60


def test_a_click_on_a_heading_sorts_the_table_down_then_up(report):
    heading = report.page.locator("#headline th button", has_text="mean").first
    column = "#headline tbody tr td:nth-child(2)"
    heading.click()
    down = [float(text) for text in report.texts(column)]
    assert down == sorted(down, reverse=True)
    assert report.page.locator("#headline th[aria-sort=descending]").count() == 1
    heading.click()
    up = [float(text) for text in report.texts(column)]
    assert up == sorted(up) != down


def test_the_pointer_shows_the_values_below_it(report):
    assert not report.page.locator(".tip").is_visible()
    report.page.locator("#thresholds .chart").first.locator(".slice").nth(5).hover()
    assert report.texts(".tip") == ["map threshold 0.5\nlayercam: 25\ntcam: 35"]
    report.page.locator("h1").hover()
    assert not report.page.locator(".tip").is_visible()


def test_a_series_can_be_switched_off(report):
    chart = report.page.locator("#thresholds .chart").first
    button = chart.locator(".legend button").nth(1)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert [chart.locator(f"[data-series='{i}']").is_visible() for i in (0, 1)] == [True, False]
    button.click()
    assert chart.locator("[data-series='1']").is_visible()


@pytest.mark.parametrize("name", ["report", "compare"])
def test_the_page_fits_a_phone(browser, pages, name):
    opened = Opened(browser, pages[name], width=360)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360  # wide tables scroll inside
    opened.page.close()


def test_headings_do_not_skip_a_level_and_every_picture_has_words(opened):
    levels = [
        int(tag[1]) for tag in opened.page.eval_on_selector_all("h1,h2,h3,h4,h5", "all => all.map(h => h.tagName)")
    ]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    unnamed = "all => all.filter(one => !(one.alt || one.getAttribute('aria-label') || one.ariaHidden)).length"
    assert opened.page.eval_on_selector_all("img, .plot > svg, svg.bar, svg.forest", unnamed) == 0
