"""The sections of a report that need no true box: the choice by tags, a contact sheet, steadiness, disagreements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pipelines.report.charts import Chart, Series, bar_chart, line_chart
from pipelines.report.checks import Checks, VideoCheck, neighbours
from pipelines.report.pictures import Picture, embed_pictures
from pipelines.report.tables import percent_cell

_BINS: Final = 5
_NEARLY: Final = 0.95


def tag_choice_section(
    reasons: Mapping[str, Any], *, method: str, thresholds: Mapping[str, float], chosen_on: str
) -> dict[str, object] | None:
    """Return the curve of the choice by tags and what it says in words; None if it knows nothing of the method.

    Args:
        reasons: as ``read_tag_reasons`` returns them.
        method: the localizer to show.
        thresholds: those in use.
        chosen_on: where they come from: ``tags``, ``validation`` or ``default``.
    """
    choices = reasons["by_localizer"]
    if method not in choices:
        return None
    found = choices[method]
    excess = [same - chance for same, chance in zip(found["same"], found["chance"], strict=True)]
    best = int(np.argmax(excess))
    text = _choice_in_words(method, found, excess, best)
    by_tags = _listed({name: choice["threshold"] for name, choice in choices.items()})
    if chosen_on == "tags":
        used = f"Thresholds of this run: {by_tags}."
    else:
        source = {"validation": "validation boxes", "default": "the settings"}.get(chosen_on, chosen_on)
        used = f"This run uses thresholds from {source}: {_listed(thresholds)}. Tags would choose {by_tags}."
    return {"text": text + used, "videos": reasons["videos"], "chart": _curve(found, excess, best)}


def _choice_in_words(method: str, found: Mapping[str, Any], excess: Sequence[float], best: int) -> str:
    if excess[best] <= 0:
        return (
            f"Boxes of {method} agree no more in the same frame than across videos, whatever share of the frame they "
            "cover: its maps hardly tell the object, and the choice by tags is no better than a guess. "
        )
    near = [share for share, value in zip(found["shares"], excess, strict=True) if value >= _NEARLY * excess[best]]
    return (
        f"Boxes of {method} agree most beyond chance (IoU {found['same'][best]:.2f} in the same frame, "
        f"{found['chance'][best]:.2f} across videos) where they cover {100 * found['share']:.1f} % of the frame on "
        f"average: at threshold {found['threshold']:g}. Shares from {100 * min(near):g} to {100 * max(near):g} % come "
        f"within {100 * (1 - _NEARLY):.0f} % of that. "
    )


def _curve(found: Mapping[str, Any], excess: Sequence[float], best: int) -> Chart:
    shares = [100 * share for share in found["shares"]]
    lines = {"excess": excess, "same frame, map and walked map": found["same"], "different videos": found["chance"]}
    summary = f"mean IoU over the mean share of the frame that boxes cover; the excess is largest at {shares[best]:g} %"
    return line_chart(
        "Agreement of boxes",
        [Series(name, shares, values) for name, values in lines.items()],
        x_label="mean share of the frame in the box, %",
        y_label="mean IoU",
        marks={"excess": shares[best]},
        summary=summary,
    )


def _listed(thresholds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in thresholds.items())


def check_sections(checks: Checks) -> dict[str, object]:
    """Return what the page shows of the checks of videos: contact sheet, steadiness, disagreements."""
    low, high = neighbours(checks.threshold)
    differing = sorted((v for v in checks.videos if not v.agrees), key=lambda v: v.tag_probability)
    return {
        "method": checks.method,
        "threshold": f"{checks.threshold:g}",
        "low": f"{low:.3g}",
        "high": f"{high:.3g}",
        "count": len(checks.videos),
        "total": checks.total,
        "classes": checks.classes,
        "left_out": list(checks.left_out),
        "sheet": embed_pictures(_picture(video) for video in checks.videos),
        "steadiness": _steadiness(checks.videos),
        "charts": _overlap_bars(checks.videos),
        "lines": [_line(video) for video in checks.videos],
        "differing": [_difference(video) for video in differing],
    }


def _picture(video: VideoCheck) -> Picture:
    label = f"{video.tag}, certainty {100 * video.certainty:.0f} %{'' if video.found else ', no box'}"
    return Picture(f"{video.video}, frame {video.frame}", ((label, video.picture),))


def _steadiness(videos: Sequence[VideoCheck]) -> dict[str, str]:
    over_time = [video.over_time for video in videos if not math.isnan(video.over_time)]
    over_thresholds = [video.over_thresholds for video in videos]
    return {
        "over_time": f"{np.mean(over_time):.2f}" if over_time else "–",
        "over_thresholds": f"{np.mean(over_thresholds):.2f}" if videos else "–",
    }


def _overlap_bars(videos: Sequence[VideoCheck]) -> list[Chart]:
    if not videos:
        return []
    edges = np.linspace(0, 1, _BINS + 1)
    values = {
        "consecutive frames": [video.over_time for video in videos if not math.isnan(video.over_time)],
        "two thresholds": [video.over_thresholds for video in videos],
    }
    counts = {name: np.histogram(np.clip(own, 0, 1), edges)[0].astype(float).tolist() for name, own in values.items()}
    groups = [f"{low:.1f}" for low in edges[:-1]]
    return [bar_chart("How much boxes overlap", groups, counts, x_label="mean IoU, from", y_label="videos")]


def _line(video: VideoCheck) -> dict[str, object]:
    shares = (video.certainty, video.tag_probability, video.over_time, video.over_thresholds)
    cells = [percent_cell(100 * value) for value in shares]
    return {"name": video.video, "tag": video.tag, "split": video.split, "cells": cells}


def _difference(video: VideoCheck) -> dict[str, object]:
    return {
        "name": video.video,
        "tag": video.tag,
        "split": video.split,
        "of_tag": percent_cell(100 * video.tag_probability),
        "best": video.best,
        "of_best": percent_cell(100 * video.best_probability),
    }
