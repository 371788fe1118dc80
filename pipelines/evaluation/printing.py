"""Tables of results as people read them on a terminal (stderr)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pipelines.evaluation.metrics import Metric
from pipelines.evaluation.results import Rows, Score
from pipelines.run.console import console

_MOST_CLASSES: Final = 20
"""Classes that have a column; more do not fit on a terminal."""


def print_table(rows: Rows, title: str) -> None:
    """Print CorLoc by class, one line per method and protocol; the protocols stand below the table.

    With more than 20 classes, the table has their mean only.
    """
    classes = list(rows[0][1].per_class)
    shown = classes if len(classes) <= _MOST_CLASSES else []
    lines = []
    for name, found in rows:
        values = (*(found.per_class[label] for label in shown), found.macro, found.micro)
        lines.append([name, Score(name, found).threshold_text, *map(percent, values)])
    notes = [str(result.protocol) for _, result in rows]
    if not shown:
        notes.append(f"{len(classes)} classes: the report and results.json have the figures of each")
    _print_lines(title, ["method", "threshold", *shown, "mean", "frames %"], lines, notes)


def print_metrics(metrics: Sequence[Metric]) -> None:
    """Print the metrics besides CorLoc: one line per metric, one column per method."""
    methods = list(dict.fromkeys(metric.method for metric in metrics))
    known = [metric for metric in metrics if not math.isnan(metric.value)]
    values = {(metric.name, metric.method): metric.value for metric in known}
    notes = {metric.name: metric.protocol for metric in known}  # that of the last method, which has a map
    lines = [[name, *(percent(values.get((name, method), math.nan)) for method in methods)] for name in notes]
    _print_lines("other figures, in percent", ["metric", *methods], lines, [f"{k}: {v}" for k, v in notes.items()])


def percent(value: float) -> str:
    """Write a percentage with one decimal, or a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def _print_lines(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    for note in dict.fromkeys(notes):
        console.print(note, style="dim", markup=False)
