"""Compare finished runs: scores over seeds, paired differences on the same test videos, settings that differ."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config.schema import load_config
from pipelines.evaluation.results import Evaluation, read_evaluation
from pipelines.run.folder import open_run
from tcam.errors import ConfigError, DataError
from tcam.metrics.corloc import CorLocResult

DRAWS: Final = 10_000
"""Bootstrap draws of videos."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run: its name, its group (the name shared by its seeds), its settings by dotted key, its evaluation."""

    name: str
    group: str
    seed: int
    settings: Mapping[str, object]
    evaluation: Evaluation

    @property
    def method(self) -> str:
        """The run's own method: the last of its localizers."""
        return self.evaluation.localizers[-1]


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The scores of one method of a group under one protocol; every list has one value per run."""

    group: str
    method: str
    threshold_choice: str
    overlap: str
    macro: Sequence[float]
    micro: Sequence[float]
    per_class: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A group minus the first group, in points of CorLoc (mean over classes), on the same frames.

    Attributes:
        group, baseline: names of the two.
        difference: mean over the seeds compared.
        interval: holds 95 % of the bootstrap draws of videos of ``difference``.
        above_zero: share of the draws above 0.
        per_seed: by seed; empty if the groups share no seed: then the means over all seeds were compared.
        per_video: by video, mean over the seeds.
    """

    group: str
    baseline: str
    difference: float
    interval: tuple[float, float]
    above_zero: float
    per_seed: Mapping[int, float] = field(default_factory=dict)
    per_video: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that ``tcam compare`` shows."""

    runs: Sequence[ComparedRun]
    scores: Sequence[GroupScore]
    differences: Sequence[Difference]
    settings: Mapping[str, Sequence[object]]

    @property
    def groups(self) -> dict[str, list[ComparedRun]]:
        """Runs by group, in the order they were given."""
        return _grouped(self.runs)


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Compare the evaluations of runs; the first one's group is the baseline.

    Raises:
        ConfigError: fewer than two runs, or one twice.
        DataError: a folder is no run or holds no evaluation, or the runs were scored on different frames.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ConfigError(f"compare needs two different runs or more, got {', '.join(map(str, folders)) or 'none'}")
    runs = _read_runs(folders)
    _check_same_frames(runs)
    groups = _grouped(runs)
    baseline, *others = groups
    return Comparison(
        runs=runs,
        scores=list(_group_scores(groups)),
        differences=[_difference(groups[name], groups[baseline]) for name in others],
        settings=_setting_differences(runs),
    )


def spread(values: Sequence[float]) -> str:
    """Write mean ± sample standard deviation; a single value as it is; a dash for none."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    mean = statistics.fmean(known)
    return f"{mean:.1f}" if len(known) == 1 else f"{mean:.1f} ± {statistics.stdev(known):.1f}"


def _read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    runs: list[ComparedRun] = []
    for folder in folders:
        config = load_config(open_run(folder) / "config.yaml").model_dump(mode="json")
        evaluation = read_evaluation(folder / "evaluation")
        if evaluation.frames is None or not evaluation.localizers:
            raise DataError(f"expected per_frame.parquet in {folder / 'evaluation'}, found none; run 'tcam evaluate'")
        settings = dict(_flat(config))
        name = folder.resolve().name
        group = _group_name(name, settings, runs)
        runs.append(ComparedRun(name, group, int(config["seed"]), settings, evaluation))
    return runs


def _group_name(name: str, settings: Mapping[str, object], earlier: Sequence[ComparedRun]) -> str:
    """Return the group of a run: that of runs whose names differ only in ``-seedN``, or whose settings in the seed.

    A group holds each seed once.
    """
    found = re.fullmatch(r"(.+)-seed\d+(?:-\d{3,})?", name)
    own = found[1] if found else name
    taken = {run.group for run in earlier if run.seed == settings["seed"]}
    for run in earlier:
        alike = {**run.settings, "seed": None} == {**settings, "seed": None}
        if run.group not in taken and (run.group == own or alike):
            return run.group
    return name if own in taken else own


def _grouped(runs: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return groups


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _setting_differences(runs: Sequence[ComparedRun]) -> dict[str, list[object]]:
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key, "–") for run in runs] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _check_same_frames(runs: Sequence[ComparedRun]) -> None:
    first = runs[0]
    wanted = _truth_of(first)
    for run in runs[1:]:
        found = _truth_of(run)
        if found.keys() != wanted.keys():
            video, frame = sorted(found.keys() ^ wanted.keys())[0]
            what = f"{len(wanted)} and {len(found)}, frame {frame} of {video} in one of them only"
        elif found != wanted:
            video, frame = next(key for key in sorted(found) if found[key] != wanted[key])
            what = f"another class or size in frame {frame} of {video}"
        elif _iou_threshold(run) != _iou_threshold(first):
            what = f"IoU >= {_iou_threshold(first):g} and IoU >= {_iou_threshold(run):g}"
        else:
            continue
        raise DataError(
            f"expected {first.name} and {run.name} judged alike on the same test frames, found {what}; "
            "evaluate both on the same videos and split"
        )


def _truth_of(run: ComparedRun) -> dict[tuple[str, int], tuple[object, ...]]:
    table = run.evaluation.frames_of(run.method)
    facts = table[["class", "width", "height"]].itertuples(index=False, name=None)
    return dict(zip(zip(table["video"], table["frame"], strict=True), facts, strict=True))


def _iou_threshold(run: ComparedRun) -> float:
    score = run.evaluation.fair_score(run.method) or run.evaluation.scores[0]
    return score.protocol.iou_threshold


def _group_scores(groups: Mapping[str, Sequence[ComparedRun]]) -> Iterator[GroupScore]:
    """Return the baselines once, then every localizer of every group, protocol by protocol."""
    first = next(iter(groups.values()))[:1]
    yield from _scores_of("", first, "baseline")
    for group, runs in groups.items():
        yield from _scores_of(group, runs, "localizer")


def _scores_of(group: str, runs: Sequence[ComparedRun], kind: str) -> Iterator[GroupScore]:
    alike: dict[tuple[str, str, str], list[CorLocResult]] = {}
    for run in runs:
        for score in run.evaluation.scores:
            if score.kind == kind:
                key = (score.method, score.protocol.threshold_choice, score.overlap_text)
                alike.setdefault(key, []).append(score.result)
    for (method, choice, overlap), results in alike.items():
        names = runs[0].evaluation.class_names
        yield GroupScore(
            *(group, method, choice, overlap),
            [result.macro for result in results],
            [result.micro for result in results],
            {name: [result.per_class.get(name, math.nan) for result in results] for name in names},
        )


def _difference(runs: Sequence[ComparedRun], baseline: Sequence[ComparedRun]) -> Difference:
    """Pair the runs by seed, or compare the means over all seeds; both sides use the same draws of videos."""
    own, base = {run.seed: run for run in runs}, {run.seed: run for run in baseline}
    common = sorted(own.keys() & base.keys())
    pair = ([own[s] for s in common], [base[s] for s in common]) if common else (list(runs), list(baseline))
    hits = [[_hits(run) for run in side] for side in pair]
    videos, frames = _frame_counts(pair[0][0])
    draws = _draw_counts(len(videos))
    drawn = np.mean([_macro(h, frames, draws) for h in hits[0]], axis=0) - np.mean(
        [_macro(h, frames, draws) for h in hits[1]], axis=0
    )
    whole = np.ones((1, len(videos)))
    macros = [[float(_macro(h, frames, whole)[0]) for h in side] for side in hits]
    delta = np.mean(hits[0], axis=0).sum(axis=1) - np.mean(hits[1], axis=0).sum(axis=1)
    low, high = (float(value) for value in np.quantile(drawn, (0.025, 0.975)))
    per_video = dict(zip(videos, (100 * delta / frames.sum(axis=1)).tolist(), strict=True))
    return Difference(
        group=runs[0].group,
        baseline=baseline[0].group,
        difference=statistics.fmean(macros[0]) - statistics.fmean(macros[1]),
        interval=(low, high),
        above_zero=float((drawn > 0).mean()),
        per_seed={seed: a - b for seed, a, b in zip(common, *macros, strict=True)} if common else {},
        per_video=per_video,
    )


def _hits(run: ComparedRun) -> Floats:
    """Count right frames by video and class: ``[V, K]``."""
    table = run.evaluation.frames_of(run.method)
    return _counts(table.assign(n=table["iou"] >= _iou_threshold(run)))


def _frame_counts(run: ComparedRun) -> tuple[list[str], Floats]:
    """Return the videos and their frames by class: V names and ``[V, K]``."""
    table = run.evaluation.frames_of(run.method)
    return sorted(table["video"].unique()), _counts(table.assign(n=1))


def _counts(table: pd.DataFrame) -> Floats:
    counts = table.pivot_table(index="video", columns="class", values="n", aggfunc="sum", fill_value=0)
    return counts.sort_index().to_numpy(dtype=np.float64)


def _draw_counts(videos: int) -> Floats:
    """Return how often each video is in each bootstrap draw: ``[DRAWS, V]``, always the same."""
    return np.random.default_rng(0).multinomial(videos, [1 / videos] * videos, size=DRAWS).astype(np.float64)


def _macro(hits: Floats, frames: Floats, draws: Floats) -> Floats:
    """Return CorLoc (mean over the classes that a draw holds) in percent of each draw: ``[S]``."""
    right, total = draws @ hits, draws @ frames
    share = np.divide(right, total, out=np.full_like(right, np.nan), where=total > 0)
    mean: Floats = 100 * np.nanmean(share, axis=1)
    return mean
