"""The files that ``tcam compare`` writes: ``compare.html``, ``compare.md`` and ``compare.json``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pipelines.report.charts import Chart, Series
from pipelines.report.compare import Comparison, Difference, GroupScore, spread
from pipelines.report.page import make_folder, write_page
from pipelines.report.sections import threshold_chart
from pipelines.report.tables import markdown_table, markdown_text, percent_cell
from pipelines.run.files import write_json, write_text

_TITLE: Final = "Comparison of runs"


COMPARISON_FILES = ("compare.json", "compare.md", "compare.html")


def write_comparison_page(folder: Path, comparison: Comparison) -> Path:
    """Write page, Markdown and JSON into a folder; returns the page's path.

    Raises:
        DataError: the folder cannot be written.
    """
    make_folder(folder)
    names = _class_names(comparison)
    page = {
        "title": _TITLE,
        "lead": " against ".join(reversed(comparison.groups)),
        "groups": {name: [run.name for run in runs] for name, runs in comparison.groups.items()},
        "methods": {name: runs[0].method for name, runs in comparison.groups.items()},
        "classes": names,
        "frames": comparison.runs[0].evaluation.num_frames,
        "num_videos": comparison.runs[0].evaluation.num_videos,
        "scores": [_score_line(score, names) for score in comparison.scores],
        "differences": _difference_lines(comparison.differences),
        "seeds": sorted({seed for item in comparison.differences for seed in item.per_seed}),
        "videos": _video_lines(comparison.differences),
        "charts": _curves(comparison),
        "settings": comparison.settings,
        "runs": [run.name for run in comparison.runs],
    }
    write_json(folder / "compare.json", as_values(comparison))
    write_text(folder / "compare.md", _markdown(comparison))
    write_page(folder / "compare.html", "compare.html", page)
    return folder / "compare.html"


def as_values(comparison: Comparison) -> dict[str, object]:
    """Return the comparison as a value that JSON can hold; NaN becomes None."""
    return {
        "format": 1,
        "groups": {name: [run.name for run in runs] for name, runs in comparison.groups.items()},
        "scores": [_without_nan(asdict(score)) for score in comparison.scores],
        "differences": [_without_nan(asdict(item)) for item in comparison.differences],
        "settings": {key: [str(v) for v in values] for key, values in comparison.settings.items()},
        "runs": [run.name for run in comparison.runs],
    }


NUM_SUMMARY_COLUMNS: Final = 6
"""Columns of ``score_rows`` before those by class, for which only a page has room."""


def score_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of scores, as text."""
    names = _class_names(comparison)
    head = ["runs", "method", "map threshold", "overlap", "mean", "over frames", *names]
    rows = [
        [
            *(item.group or "–", item.method, _choice(item), item.overlap, spread(item.macro), spread(item.micro)),
            *(spread(item.per_class[name]) for name in names),
        ]
        for item in comparison.scores
    ]
    return head, rows


def difference_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of differences, as text."""
    seeds = sorted({seed for item in comparison.differences for seed in item.per_seed})
    head = ["runs", "minus", "points", "95 % of video draws", "draws above 0", *(f"seed {seed}" for seed in seeds)]
    rows = [
        [
            *(item.group, item.baseline, f"{item.difference:+.1f}", _interval(item), f"{100 * item.above_zero:.0f} %"),
            *(f"{item.per_seed[seed]:+.1f}" if seed in item.per_seed else "–" for seed in seeds),
        ]
        for item in comparison.differences
    ]
    return head, rows


def _markdown(comparison: Comparison) -> str:
    head, rows = score_rows(comparison)
    parts = [f"# {_TITLE}", "", "CorLoc in percent, mean ± sample standard deviation over seeds.", ""]
    parts += [*markdown_table(head, rows, left=4), ""]
    head, rows = difference_rows(comparison)
    parts += ["## Paired differences", "", "Mean over classes, points, on the same frames.", ""]
    parts += [*markdown_table(head, rows, left=2), "", "## Settings that differ", ""]
    settings = [[key, *map(str, values)] for key, values in comparison.settings.items()]
    names = [run.name for run in comparison.runs]
    parts += markdown_table(["key", *names], settings, left=1) if settings else ["None."]
    members = [
        f"* {markdown_text(name)}: {markdown_text(', '.join(run.name for run in runs))}"
        for name, runs in comparison.groups.items()
    ]
    return "\n".join([*parts, "", "## Runs", "", *members]) + "\n"


def _class_names(comparison: Comparison) -> tuple[str, ...]:
    return comparison.runs[0].evaluation.class_names


def _choice(score: GroupScore) -> str:
    return "no map" if score.threshold_choice == "none" else score.threshold_choice


def _interval(item: Difference) -> str:
    return f"{item.interval[0]:+.1f} to {item.interval[1]:+.1f}"


def _score_line(score: GroupScore, names: Sequence[str]) -> dict[str, object]:
    return {
        "group": score.group,
        "method": score.method,
        "threshold": _choice(score),
        "overlap": score.overlap,
        "seeds": len(score.macro),
        "macro": _cell(score.macro),
        "micro": _cell(score.micro),
        "cells": [_cell(score.per_class[name]) for name in names],
    }


def _cell(values: Sequence[float]) -> dict[str, object]:
    known = [value for value in values if not math.isnan(value)]
    mean = percent_cell(statistics.fmean(known) if known else math.nan)
    return {"text": spread(values), "value": mean.value, "shade": mean.shade, "top": False}


def _difference_lines(differences: Sequence[Difference]) -> list[dict[str, object]]:
    """Place every interval, and every seed, on one scale around 0."""
    bounds = [
        value for item in differences for value in (*item.interval, item.difference, *item.per_seed.values(), 0.0)
    ]
    low, high = min(bounds, default=0.0), max(bounds, default=1.0)
    room = 0.05 * (high - low) or 1.0

    def place(value: float) -> str:
        return f"{100 * (value - low + room) / (high - low + 2 * room):.2f}"

    return [
        {
            "group": item.group,
            "baseline": item.baseline,
            "points": f"{item.difference:+.1f}",
            "value": f"{item.difference:.4f}",
            "interval": _interval(item),
            "above": f"{100 * item.above_zero:.0f} %",
            "per_seed": {seed: f"{value:+.1f}" for seed, value in item.per_seed.items()},
            "seed_places": [place(value) for value in item.per_seed.values()],
            "low": place(item.interval[0]),
            "high": place(item.interval[1]),
            "at": place(item.difference),
            "zero": place(0.0),
        }
        for item in differences
    ]


def _video_lines(differences: Sequence[Difference]) -> list[dict[str, object]]:
    videos = sorted({video for item in differences for video in item.per_video})
    return [
        {"name": video, "cells": [_signed(item.per_video.get(video, math.nan)) for item in differences]}
        for video in videos
    ]


def _signed(value: float) -> dict[str, str]:
    if math.isnan(value):
        return {"text": "–", "value": "", "kind": ""}
    return {
        "text": f"{value:+.1f}",
        "value": f"{value:.4f}",
        "kind": "plus" if value > 0 else "minus" if value < 0 else "",
    }


def _curves(comparison: Comparison) -> list[Chart]:
    """Draw CorLoc of each run's own method against the map threshold."""
    series = []
    for run in comparison.runs:
        curve = run.evaluation.curves.get(run.method)
        if curve is not None and any(map(math.isfinite, curve.macro)):
            series.append(Series(run.name, curve.thresholds, curve.macro))
    if not series:
        return []
    return [threshold_chart("Mean over classes, own method of each run", series, {})]


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value
