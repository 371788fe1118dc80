"""The tables of a report: CorLoc by class under each protocol, next to published results; as HTML, Markdown, CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from pipelines.evaluation.metrics import Metric
from pipelines.evaluation.results import Evaluation, Score

_ALIASES: Final = {"aero": "aeroplane", "mbike": "motorbike"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A percentage in a table: text, value, width of its bar, shade 0..10, and whether it is the best of its column."""

    text: str
    value: str
    width: str
    shade: int
    top: bool = False


def percent_cell(value: float, best: float = math.nan, *, fair: bool = False) -> Cell:
    """Make a cell of a percentage; it is marked where it is ``best`` and ``fair``."""
    if math.isnan(value):
        return Cell("–", "-1", "0", 0)
    shade = min(max(math.ceil(value / 10), 0), 10)
    return Cell(f"{value:.1f}", f"{value:.4f}", f"{min(max(value, 0), 100):.2f}", shade, top=fair and value == best > 0)


def interval_text(interval: tuple[float, float] | None) -> str:
    """Write an interval of percentages, or nothing."""
    return "" if interval is None or math.isnan(interval[0]) else f"{interval[0]:.1f} to {interval[1]:.1f}"


def score_lines(evaluation: Evaluation) -> list[dict[str, object]]:
    """Return every score as a line of the page; the best of each column, oracles excluded, is marked."""
    fair = [score for score in evaluation.scores if score.fair and not score.protocol.inclusive]
    best = {name: maximum([score.result.per_class[name] for score in fair]) for name in evaluation.class_names}
    best_macro, best_micro = maximum([s.result.macro for s in fair]), maximum([s.result.micro for s in fair])
    return [
        {
            "name": score.method,
            "kind": score.protocol.threshold_choice.split()[0],
            "threshold": score.threshold_text,
            "overlap": score.overlap_text,
            "interval": interval_text(found.interval),
            "cells": [percent_cell(found.per_class[n], best[n], fair=score in fair) for n in evaluation.class_names],
            "macro": percent_cell(found.macro, best_macro, fair=score in fair),
            "micro": percent_cell(found.micro, best_micro, fair=score in fair),
        }
        for score, found in ((score, score.result) for score in evaluation.scores)
    ]


def large_figures(evaluation: Evaluation) -> list[dict[str, object]]:
    """Return the headline numbers: each localizer at its fairest threshold, and the best baseline."""
    plain = [score for score in evaluation.scores if not score.protocol.inclusive]
    learnt = [s for s in plain if s.kind == "localizer" and s.fair]
    learnt = learnt or [s for s in plain if s.kind == "localizer" and s.protocol.threshold_choice == "oracle"]
    baseline = max((s for s in plain if s.kind == "baseline"), key=lambda s: _or_zero(s.result.macro), default=None)
    best = maximum([score.result.macro for score in learnt])
    return [
        {
            "name": score.method,
            "value": percent_cell(score.result.macro).text,
            "interval": interval_text(score.result.interval),
            "note": "CorLoc of a box that looks at no pixel"
            if score.kind == "baseline"
            else f"CorLoc, map threshold {score.threshold_text}",
            "best": score.result.macro == best,
        }
        for score in [*learnt, *([baseline] if baseline else [])]
    ]


def metric_table(evaluation: Evaluation) -> dict[str, object]:
    """Return the other metrics: one line per metric that any method has, one column per method.

    The protocol shown is that of the last method, because baselines, which have no map threshold, come first.
    """
    methods = list(dict.fromkeys(metric.method for metric in evaluation.metrics))
    named: dict[tuple[str, str, int], dict[str, Metric]] = {}
    for metric in evaluation.metrics:
        kind = (metric.name, metric.unit)
        again = sum(metric.method in found for key, found in named.items() if key[:2] == kind)
        named.setdefault((*kind, again), {})[metric.method] = metric
    lines = [
        {
            "name": f"{name} (%)" if unit == "%" else name,
            "protocol": list(found.values())[-1].protocol,
            "cells": [_metric_text(found[m].value, unit) if m in found else "–" for m in methods],
        }
        for (name, unit, _), found in named.items()
        if not all(math.isnan(metric.value) for metric in found.values())
    ]
    return {"methods": methods, "lines": lines}


def video_lines(evaluation: Evaluation) -> dict[str, object]:
    """Return CorLoc by video at the fair threshold of each method (at an oracle if there is none)."""
    methods = dict.fromkeys(score.method for score in evaluation.scores)
    chosen = [evaluation.fair_score(m) or next(s for s in evaluation.scores if s.method == m) for m in methods]
    videos = sorted({video for score in chosen for video in score.result.per_video})
    lines = [
        {"name": video, "cells": [percent_cell(score.result.per_video.get(video, math.nan)) for score in chosen]}
        for video in videos
    ]
    return {"columns": [(score.method, score.threshold_text) for score in chosen], "lines": lines}


def published_for(source: str, class_names: Sequence[str]) -> dict[str, object] | None:
    """Return the published results on a YouTube-Objects data set in the order of its classes; None for other videos.

    Args:
        source: name or folder of the videos; it must contain ``yto_v1`` or ``yto_v2.2``.
        class_names: columns of the result; a class that is not one of the ten means other videos.
    """
    found = re.search(r"(?:yto|youtube-?objects)[-_ ]?v(1|2)", source.lower())
    table: dict[str, Any] = json.loads(resources.files("pipelines").joinpath("pages/published.json").read_text("utf-8"))
    known = [_ALIASES.get(name.lower(), name.lower()) for name in class_names]
    if found is None or not known or not set(known) <= set(table["classes"]):
        return None
    columns = [table["classes"].index(name) for name in known]
    stored = table["yto_v1" if found[1] == "1" else "yto_v2.2"]
    rows = [
        {"name": name, "cells": [percent_cell(values[i]) for i in columns], "macro": percent_cell(values[-1])}
        for name, *values in stored["rows"]
    ]
    return {"title": stored["title"], "note": table["note"], "rows": rows}


def protocols(scores: Sequence[Score]) -> list[str]:
    """Return the sentence of every protocol, without repetitions."""
    return list(dict.fromkeys(str(score.protocol) for score in scores))


def table_csv(evaluation: Evaluation) -> str:
    """Write every score as a line of CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = evaluation.class_names
    head = ["method", "threshold", *names, "mean over classes", "over frames", "frames", "low", "high", "protocol"]
    table.writerow(head)
    for score in evaluation.scores:
        threshold = "" if score.result.threshold is None else f"{score.result.threshold:g}"
        found = score.result
        values = [_plain(value) for value in (*(found.per_class[n] for n in names), found.macro, found.micro)]
        interval = [_plain(value) for value in found.interval or (math.nan, math.nan)]
        table.writerow([score.method, threshold, *values, found.num_frames, *interval, str(score.protocol)])
    return text.getvalue()


def report_markdown(title: str, evaluation: Evaluation, notes: Sequence[str]) -> str:
    """Write the headline tables as Markdown."""
    parts = [f"# {markdown_text(title)}", ""]
    if evaluation.scores:
        names = evaluation.class_names
        head = ["method", "map threshold", "overlap", "mean", "95 % of video draws", "over frames", *names]
        rows = [
            [
                *(score.method, score.threshold_text, score.overlap_text),
                *(percent_cell(found.macro).text, interval_text(found.interval), percent_cell(found.micro).text),
                *(percent_cell(found.per_class[name]).text for name in names),
            ]
            for score, found in ((score, score.result) for score in evaluation.scores)
        ]
        parts += [f"CorLoc in percent, {evaluation.num_frames} frames, {evaluation.split} split.", ""]
        parts += [*markdown_table(head, rows, left=3), ""]
    if evaluation.metrics:
        table = [[m.name, m.method, _metric_text(m.value, m.unit), m.protocol] for m in evaluation.metrics]
        parts += [*markdown_table(["metric", "method", "value", "protocol"], table, left=2), ""]
    parts += [f"* {markdown_text(line)}" for line in notes]
    return "\n".join(parts) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lay out a Markdown table whose first ``left`` columns are text; nothing in a cell can break or become markup."""
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    lines = [list(map(markdown_text, head)), rule, *(list(map(markdown_text, row)) for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def markdown_text(text: str) -> str:
    """Escape what Markdown would read as a table, a tag or an emphasis."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([|`*\[\]\\])", r"\\\1", plain)


def maximum(values: Sequence[float]) -> float:
    """Return the largest number, NaN where there is none."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def counts_of(evaluation: Evaluation) -> list[Mapping[str, object]]:
    """Return classes with their frames and videos, for the head of a table."""
    frames, videos = evaluation.frames_per_class, evaluation.videos_per_class
    return [{"name": n, "frames": frames.get(n, ""), "videos": videos.get(n, "")} for n in evaluation.class_names]


def _metric_text(value: float, unit: str) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}" if unit == "%" else f"{value:.3f}"


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
