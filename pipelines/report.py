"""One HTML page of a run that opens from disk: figures, table by class, frames, video; the table as CSV and Markdown.

The page runs no script and fetches nothing: a strict content policy allows its own style sheet (by hash) and the
pictures and the video that lie beside it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import quote

import jinja2
from PIL import Image
from torch import Tensor

from pipelines.files import write_text
from tcam.errors import DataError
from tcam.files import replacing
from tcam.localization.corloc import CorLocResult

Rows = Sequence[tuple[str, CorLocResult]]

_LEAD: Final = "Where is the tagged object in every frame? Learnt from video tags alone, judged on annotated frames."


def write_report(
    folder: Path,
    *,
    title: str,
    rows: Rows,
    pictures: Iterable[tuple[str, Tensor]] = (),
    protocol: Sequence[str] = (),
    video: Path | None = None,
    metadata: Mapping[str, object] | None = None,
    lead: str = _LEAD,
) -> Path:
    """Write ``report/`` in a folder: ``report.html``, ``table.csv``, ``table.md`` and the pictures.

    Args:
        folder: the run's folder.
        title: headline of the page.
        rows: (method, result); results of one evaluation, so of the same classes. May be empty: nothing was scored.
        pictures: (caption, uint8 ``[3, H, W]`` RGB), taken one at a time.
        protocol: further lines below the table (each result's own protocol is printed anyway).
        video: an mp4 that browsers play; copied beside the page unless it lies there.
        metadata: what a reader needs to do it again; shown as JSON.
        lead: the sentence below the headline.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder cannot be written.
        ValueError: rows of different classes, or a picture of another shape.
    """
    classes = [tuple(result.per_class) for _, result in rows]
    if any(names != classes[0] for names in classes):
        raise ValueError(f"rows must share their classes, got {sorted(set(classes))}")
    report = folder / "report"
    try:
        (report / "pictures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {report}: {error.strerror}; choose another folder") from None
    page = _describe(rows)
    page["pictures"] = _save_pictures(report / "pictures", pictures)
    page["video"] = None if video is None else _place_video(video, report)
    page["protocol"] = [*dict.fromkeys(str(result.protocol) for _, result in rows), *protocol]
    page["metadata"] = json.dumps(metadata, indent=2, ensure_ascii=False, default=str) if metadata else ""
    page["title"], page["lead"] = title, lead
    if rows:
        write_text(report / "table.csv", _table_csv(rows))
        write_text(report / "table.md", _table_markdown(rows, page["protocol"]))
    write_text(report / "report.html", _render(page))
    return report / "report.html"


@dataclass(frozen=True, slots=True)
class _Cell:
    """A percentage as the page shows it: its text, its width as a bar, its shade 0..10, whether it tops its column."""

    text: str
    width: str
    shade: int
    top: bool = False


def _cell(value: float, best: float = math.nan, fair: bool = False) -> _Cell:
    if math.isnan(value):
        return _Cell("–", "0", 0)
    return _Cell(f"{value:.1f}", f"{value:.2f}", math.ceil(value / 10), top=fair and value == best)


def _is_fair(result: CorLocResult) -> bool:
    """Say whether the threshold was chosen without a look at the boxes it is judged by."""
    return not result.protocol.threshold_choice.startswith("oracle")


def describe_threshold(result: CorLocResult) -> str:
    """Say which map threshold a result used and how it was chosen."""
    choice = result.protocol.threshold_choice
    if choice == "none":
        return "no map"
    return choice if result.threshold is None else f"{result.threshold:.2f} ({choice})"


def _describe(rows: Rows) -> dict[str, object]:
    """Give the figures, bars and tables of the page."""
    fair = [result for _, result in rows if _is_fair(result)]
    names = list(rows[0][1].per_class) if rows else []
    best = {name: _maximum([result.per_class[name] for result in fair]) for name in names}
    best_macro = _maximum([result.macro for result in fair])
    best_micro = _maximum([result.micro for result in fair])
    lines = [
        {
            "name": name,
            "kind": result.protocol.threshold_choice.split()[0],
            "threshold": describe_threshold(result),
            "cells": [_cell(result.per_class[label], best[label], _is_fair(result)) for label in names],
            "macro": _cell(result.macro, best_macro, _is_fair(result)),
            "micro": _cell(result.micro, best_micro, _is_fair(result)),
        }
        for name, result in rows
    ]
    videos = sorted({video for _, result in rows for video in result.per_video})
    counts = rows[0][1].frames_per_class if rows else {}
    return {
        "rows": lines,
        "classes": [{"name": name, "frames": counts.get(name, "")} for name in names],
        "frames": rows[0][1].num_frames if rows else 0,
        "figures": _figures(rows),
        "videos": [
            {"name": video, "cells": [_cell(result.per_video.get(video, math.nan)) for _, result in rows]}
            for video in videos
        ],
    }


def _figures(rows: Rows) -> list[dict[str, object]]:
    """Give the large figures on top: the methods under the fairest threshold there is, and the best floor."""
    learnt = [(n, r) for n, r in rows if r.protocol.threshold_choice == "validation"]
    learnt = learnt or [(n, r) for n, r in rows if r.protocol.threshold_choice == "oracle"]
    floors = [(n, r) for n, r in rows if r.protocol.threshold_choice == "none"]
    best_floor = max(floors, key=lambda row: _or_zero(row[1].macro), default=None)
    best = _maximum([result.macro for _, result in learnt])
    shown = [*learnt, *([best_floor] if best_floor else [])]
    return [
        {
            "name": name,
            "value": _cell(result.macro).text,
            "note": "CorLoc of a box that looks at no pixel"
            if result.threshold is None
            else f"CorLoc, map threshold {describe_threshold(result)}",
            "best": result.macro == best,
        }
        for name, result in shown
    ]


def _maximum(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _save_pictures(folder: Path, pictures: Iterable[tuple[str, Tensor]]) -> list[dict[str, object]]:
    for old in folder.glob("[0-9][0-9][0-9].jpg"):  # of an earlier report in this folder
        old.unlink()
    saved: list[dict[str, object]] = []
    for number, (caption, pixels) in enumerate(pictures):
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise ValueError(f"picture '{caption}' must be uint8 [3, H, W], got {list(pixels.shape)}")
        path = folder / f"{number:03d}.jpg"
        with replacing(path) as temporary:
            Image.fromarray(pixels.cpu().permute(1, 2, 0).contiguous().numpy()).save(temporary, "JPEG", quality=90)
        height, width = pixels.shape[1:]
        saved.append({"file": f"pictures/{path.name}", "caption": caption, "width": width, "height": height})
    return saved


def _place_video(video: Path, report: Path) -> str:
    if video.resolve().parent != report.resolve():
        with replacing(report / video.name) as temporary:
            shutil.copyfile(video, temporary)
    return quote(video.name)


def _render(page: Mapping[str, object]) -> str:
    source = resources.files("pipelines").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = re.search(r"<style>(.*?)</style>", source, re.DOTALL)
    digest = hashlib.sha256(style[1].encode() if style else b"").digest()
    # "file:" stands beside 'self' because a page opened from disk has no origin that 'self' could match.
    beside = "'self' file:"
    policy = (
        f"default-src 'none'; style-src 'sha256-{base64.b64encode(digest).decode()}'; img-src {beside}; "
        f"media-src {beside}; base-uri 'none'; form-action 'none'"
    )
    return environment.from_string(source).render({**page, "policy": policy})


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _table_csv(rows: Rows) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = list(rows[0][1].per_class)
    table.writerow(["method", "threshold", *names, "mean over classes", "over frames", "frames", "protocol"])
    for name, result in rows:
        threshold = "" if result.threshold is None else f"{result.threshold:g}"
        values = [_plain(value) for value in (*result.per_class.values(), result.macro, result.micro)]
        table.writerow([name, threshold, *values, result.num_frames, str(result.protocol)])
    return text.getvalue()


def _table_markdown(rows: Rows, protocol: object) -> str:
    names = list(rows[0][1].per_class)
    lines = [["method", "map threshold", *names, "mean", "over frames"], ["---", "---", *["---:"] * (len(names) + 2)]]
    for name, result in rows:
        values = [_cell(value).text for value in (*result.per_class.values(), result.macro, result.micro)]
        lines.append([name, describe_threshold(result), *values])
    table = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    notes = [f"* {line}" for line in protocol] if isinstance(protocol, list) else []
    return "\n".join([*table, "", *notes]) + "\n"
