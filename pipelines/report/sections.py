"""The charts of a run's report: thresholds, overlaps, object sizes, boxes over time, training."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from pipelines.evaluation.results import Evaluation
from pipelines.report.charts import Chart, Series, bar_chart, line_chart

_AREAS: Final = (0.0, 0.01, 0.04, 0.1, 0.25, 0.5, math.inf)
_AREA_NAMES: Final = ("< 1", "1–4", "4–10", "10–25", "25–50", "> 50")
_PERCENT: Final = (0.0, 100.0)
_MOST_LINES: Final = 20
_ROUND: Final = re.compile(r"localizer-(\d+)")

_Values = dict[str, dict[int, float]]
"""The values of a stage: by term, then by epoch."""


def threshold_charts(evaluation: Evaluation) -> list[Chart]:
    """Draw CorLoc against the map threshold: one line per method, then one line per class for each method.

    More than 20 classes are not drawn.
    """
    curves = {name: curve for name, curve in evaluation.curves.items() if len(curve.thresholds) > 1}
    if not curves:
        return []
    lines = [Series(name, curve.thresholds, curve.macro) for name, curve in curves.items()]
    charts = [threshold_chart("Mean over classes", lines, evaluation.thresholds)]
    for name, curve in curves.items():
        known = {label: values for label, values in curve.per_class.items() if any(map(math.isfinite, values))}
        lines = [Series(label, curve.thresholds, values) for label, values in known.items()]
        chosen = evaluation.thresholds.get(name)
        marks = {} if chosen is None else dict.fromkeys(known, chosen)
        charts += [threshold_chart(f"By class: {name}", lines, marks)] if 0 < len(lines) <= _MOST_LINES else []
    return charts


def threshold_chart(title: str, lines: Sequence[Series], marks: Mapping[str, float]) -> Chart:
    """Draw lines of CorLoc in percent against the map threshold."""
    return line_chart(title, lines, marks=marks, x_label="map threshold", y_label="CorLoc, %", y_range=_PERCENT)


def overlap_chart(evaluation: Evaluation) -> list[Chart]:
    """Draw the distribution of IoU over frames, per method."""
    edges = np.arange(11) / 10  # as exact as the numbers they are compared with
    shares = {
        method: (100 * np.histogram(table["iou"].fillna(0).clip(0, 1), edges)[0] / len(table)).tolist()
        for method, table in _tables(evaluation).items()
    }
    groups = [f"{low:.1f}" for low in edges[:-1]]
    if not shares:
        return []
    return [bar_chart("IoU of the box with the true box", groups, shares, x_label="IoU, from", y_label="frames, %")]


def size_chart(evaluation: Evaluation) -> list[Chart]:
    """Draw CorLoc over the size of the object, per method; sizes that no frame has are left out."""
    tables = _tables(evaluation)
    if not tables:
        return []
    level = next((score.protocol.iou_threshold for score in evaluation.scores), 0.5)
    bins = {
        method: pd.cut(table["truth_area"], _AREAS, labels=_AREA_NAMES, right=False) for method, table in tables.items()
    }
    counts = next(iter(bins.values())).value_counts()
    names = [name for name in _AREA_NAMES if counts[name] > 0]
    shares = {
        method: [float(100 * (table["iou"][bins[method] == name] >= level).mean()) for name in names]
        for method, table in tables.items()
    }
    return [
        bar_chart(
            f"CorLoc by object size, IoU >= {level:g}",
            names,
            shares,
            x_label="area of the true box, % of the frame",
            y_label="CorLoc, %",
            y_range=_PERCENT,
            notes=[f"{counts[name]} frames" for name in names],
        )
    ]


def trajectory_charts(evaluation: Evaluation, *, most: int = 3) -> list[dict[str, object]]:
    """Draw the left/right and top/bottom sides of predicted and true boxes over time, for a few videos.

    The videos are the worst, the median and the best of the run's own method (mean IoU) among those with three
    annotated frames or more.
    """
    if not evaluation.localizers:
        return []
    method = evaluation.localizers[-1]
    table = evaluation.frames_of(method)
    videos = table.groupby("video")["iou"].agg(["mean", "size"])
    order = videos[videos["size"] >= 3].sort_values("mean").index.tolist()
    if not order:
        return []
    chosen = sorted({round(i * (len(order) - 1) / max(most - 1, 1)) for i in range(most)})
    return [_trajectory(str(order[i]), table[table["video"] == order[i]], method) for i in chosen]


def training_charts(folder: Path) -> list[dict[str, object]]:
    """Draw every value of ``metrics.jsonl`` over epochs: a group per stage, a small chart per loss term or score.

    Rounds of the localizer (``localizer-1``, ``localizer-2``, ``localizer``) are one group, with a line each.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    stages: dict[str, _Values] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = _row(line)
        stage = stages.setdefault(str(row.pop("stage", "")), {})
        epoch = int(row.pop("epoch", 0))
        for name, value in row.items():
            if isinstance(value, int | float):
                stage.setdefault(name, {})[epoch] = float(value)  # an epoch done again counts once
    groups: list[dict[str, object]] = []
    for name, rounds in _rounds(stages).items():
        terms = dict.fromkeys(term for values in rounds.values() for term in values)
        charts = [_training_chart(term, rounds) for term in terms]
        groups.append({"name": name, "charts": [chart for chart in charts if chart is not None]})
    return [group for group in groups if group["charts"]]


def _rounds(stages: Mapping[str, _Values]) -> dict[str, dict[str, _Values]]:
    """Group stages by heading and, inside, by the name of their line."""
    numbers = {int(found[1]): name for name in stages if (found := _ROUND.fullmatch(name))}
    rounds = {f"round {number}": stages[numbers[number]] for number in sorted(numbers)}
    if not rounds:
        return {name: {"": values} for name, values in stages.items()}
    if "localizer" in stages:
        rounds["last round"] = stages["localizer"]
    others = [name for name in stages if name != "localizer" and not _ROUND.fullmatch(name)]
    return {**{name: {"": stages[name]} for name in others}, "localizer, in rounds": rounds}


def _row(line: str) -> dict[str, float]:
    """Read one line of the log; a line cut off by a crash is empty."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _training_chart(term: str, rounds: Mapping[str, _Values]) -> Chart | None:
    known = {name: dict(sorted(values[term].items())) for name, values in rounds.items() if term in values}
    lines = [Series(name or term, list(points), list(points.values())) for name, points in known.items()]
    if not any(math.isfinite(value) for line in lines for value in line.y):
        return None
    kind = "%" if term.startswith("val_") else "loss"
    return line_chart(term, lines, x_label="epoch", y_label=kind)


def _trajectory(video: str, table: pd.DataFrame, method: str) -> dict[str, object]:
    frames = table["frame"].tolist()
    charts = []
    for title, low, high, side in (("left to right", "x0", "x1", "width"), ("top to bottom", "y0", "y1", "height")):
        true_box = Series("true box", frames, _share(table, f"t{high}", side), _share(table, f"t{low}", side))
        found = Series(method, frames, _share(table, high, side), _share(table, low, side))
        charts.append(
            line_chart(
                title,
                [true_box, found],
                x_label="frame",
                y_label=f"share of the {side}, %",
                y_range=_PERCENT,
                summary=f"{video}: {title} sides of the true box and of the box of {method} over frames",
            )
        )
    mean = 100 * float(table["iou"].mean())
    return {"name": video, "note": f"{len(table)} annotated frames, mean IoU {mean:.0f} %", "charts": charts}


def _share(table: pd.DataFrame, column: str, side: str) -> Sequence[float]:
    values: list[float] = (100 * table[column] / table[side]).clip(0, 100).tolist()
    return values


def _tables(evaluation: Evaluation) -> dict[str, pd.DataFrame]:
    methods = [*evaluation.localizers, *dict.fromkeys(s.method for s in evaluation.scores if s.kind == "baseline")]
    tables = {method: evaluation.frames_of(method) for method in methods}
    return {method: table for method, table in tables.items() if len(table)}
