"""Write a report: an HTML page that opens from disk, with tables, charts and pictures; the tables as Markdown and CSV.

The page fetches nothing. A strict content policy allows only its own style sheet and small script (by hash), the
pictures inside it, and a video next to it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pipelines.evaluation.results import Evaluation, Rows, evaluation_of
from pipelines.report.charts import Chart
from pipelines.report.pictures import Picture, embed_pictures
from pipelines.report.tables import (
    counts_of,
    large_figures,
    metric_table,
    protocols,
    report_markdown,
    score_lines,
    table_csv,
    video_lines,
)
from pipelines.run.files import write_text
from pipelines.run.page_template import render_page
from tcam.errors import DataError
from tcam.files import replacing

LEAD: Final = "Where is the tagged object in every frame? Learnt from video tags only, scored on annotated frames."
UNSCORED_LEAD: Final = "Where is the tagged object in every frame? Learnt from video tags only; no true box was read."


@dataclass(frozen=True, slots=True)
class Sections:
    """The parts of a report besides its tables; each is optional.

    Attributes:
        thresholds, overlaps, sizes: charts of the evaluation.
        trajectories: name, note and charts of a few videos.
        training: name and charts of each stage.
        gallery: pictures by heading, drawn one at a time.
        published: published results, see ``published_for``.
        details: text by heading, shown as it is, such as settings.
        tag_choice: how tags choose the map threshold, see ``tag_choice_section``.
        checks: what can be said about boxes without true ones, see ``check_sections``.
    """

    thresholds: Sequence[Chart] = ()
    overlaps: Sequence[Chart] = ()
    sizes: Sequence[Chart] = ()
    trajectories: Sequence[Mapping[str, object]] = ()
    training: Sequence[Mapping[str, object]] = ()
    gallery: Mapping[str, Iterable[Picture]] = field(default_factory=dict)
    published: Mapping[str, object] | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    tag_choice: Mapping[str, object] | None = None
    checks: Mapping[str, object] | None = None


def write_report(
    folder: Path,
    *,
    title: str,
    rows: Rows,
    pictures: Iterable[Picture] = (),
    protocol: Sequence[str] = (),
    video: Path | None = None,
    metadata: Mapping[str, object] | None = None,
    lead: str = LEAD,
) -> Path:
    """Write ``folder/report`` for CorLoc results of any runs; see ``write_evaluation_report``.

    Args:
        folder: the folder in which ``report/`` is created.
        title: headline of the page.
        rows: (method, result) pairs of the same classes; empty if nothing was scored.
        pictures: frames to show, taken one at a time.
        protocol: further lines below the table (each result's own protocol is always printed).
        video: an mp4 that browsers play; copied next to the page unless it is there already.
        metadata: what a reader needs to reproduce the results; shown as JSON.
        lead: the sentence below the headline.

    Raises:
        DataError: the folder cannot be written.
        ValueError: rows of different classes, or a picture of another shape.
    """
    details = {"How this was made": as_json(metadata)} if metadata else {}
    sections = Sections(gallery={"": pictures}, details=details)
    evaluation = evaluation_of(rows)
    return write_evaluation_report(
        folder / "report", title, evaluation, sections, notes=protocol, video=video, lead=lead
    )


def write_evaluation_report(
    report: Path,
    title: str,
    evaluation: Evaluation,
    sections: Sections,
    *,
    notes: Sequence[str] = (),
    video: Path | None = None,
    lead: str = LEAD,
) -> Path:
    """Write ``report.html``, ``report.md`` and ``table.csv`` of one evaluation into a folder; returns the page's path.

    Raises:
        DataError: the folder cannot be written.
        ValueError: a picture of another shape.
    """
    make_folder(report)
    notes = [*protocols(evaluation.scores), *notes]
    page = {
        "title": title,
        "lead": lead,
        "evaluation": evaluation,
        "classes": counts_of(evaluation),
        "figures": large_figures(evaluation),
        "rows": score_lines(evaluation),
        "metrics": metric_table(evaluation),
        "videos": video_lines(evaluation),
        "notes": notes,
        "sections": sections,
        "gallery": {name: embed_pictures(pictures) for name, pictures in sections.gallery.items()},
        "video": None if video is None else _place_video(video, report),
    }
    write_text(report / "report.md", report_markdown(title, evaluation, notes))
    if evaluation.scores:
        write_text(report / "table.csv", table_csv(evaluation))
    write_page(report / "report.html", "report.html", page)
    return report / "report.html"


def write_page(path: Path, template: str, values: Mapping[str, object]) -> None:
    """Fill one of the templates of ``pages/`` and write it; every value is escaped."""
    # "file:" stands beside 'self' because a page opened from disk has no origin that 'self' could match.
    media = "media-src 'self' file:"
    text, _ = render_page(template, values, styles=("page.css",), script="page.js", more_policy=media)
    write_text(path, text)


def make_folder(folder: Path) -> None:
    """Create a folder for pages.

    Raises:
        DataError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}; choose another folder") from None


def as_json(value: object) -> str:
    """Return a value as indented JSON for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _place_video(video: Path, report: Path) -> str:
    if video.resolve().parent != report.resolve():
        with replacing(report / video.name) as temporary:
            shutil.copyfile(video, temporary)
    return quote(video.name)
