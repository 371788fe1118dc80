"""Tables of an ablation over several seeds, as Markdown, for real.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from harness import spread, table_head, table_row
from torch import Tensor

from tcam.metrics.corloc import CorLocResult

Results = dict[str, dict[str, list[CorLocResult]]]
"""By method, by choice of the map threshold: one result per seed."""

Rows = Sequence[tuple[str, CorLocResult]]
"""What one run stores: baselines, then each localizer at its validation threshold and oracle, its own method last."""


def collect(runs: Mapping[str, Sequence[Rows]], *, baselines_of: str) -> Results:
    """Return the results of each row's own method from its runs, one per seed, and the baselines of one row."""
    results: Results = {}
    baselines = {name for rows in runs[baselines_of] for name, result in rows if _choice(result) == "none"}
    for name in sorted(baselines):
        results[name] = {"none": [dict(rows)[name] for rows in runs[baselines_of]]}
    for row, per_seed in runs.items():
        for rows in per_seed:
            for name, result in rows:
                if name == rows[-1][0]:
                    results.setdefault(row, {}).setdefault(_choice(result), []).append(result)
    return results


def score_table(results: Results, minutes: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Return mean ± sample standard deviation over seeds of every method under every choice of threshold.

    ``minutes`` of some methods, one per seed, become the last column; None: not measured.
    """
    some = next(iter(next(iter(results.values())).values()))[0]
    head = ["method", "map threshold", "mean", "over frames", *some.per_class, *(["minutes"] if minutes else [])]
    lines = [f"{some.num_frames} frames", "", *table_head(*head, text_columns=2).splitlines()]
    for choice, text in (
        ("none", "no map"),
        *((choice, choice) for choice in ("tags", "validation", "oracle", "oracle per class")),
    ):
        for method, by_choice in results.items():
            if choice in by_choice:
                same = by_choice[choice]
                values = [[result.macro for result in same], [result.micro for result in same]]
                values += [[result.per_class[name] for result in same] for name in some.per_class]
                cells = [method, text, *map(spread, values)]
                if minutes:
                    cells.append(spread(minutes[method]) if method in minutes else "")
                lines.append(table_row(*cells))
    return lines


def seed_choices(results: Results) -> list[str]:
    """Return the choices of the map threshold to compare methods by: those without the boxes of the split."""
    found = [choice for choice in ("tags", "validation") if any(choice in made for made in results.values())]
    return found or ["oracle"]


def seed_table(
    results: Results, seeds: Sequence[int], videos: Mapping[str, tuple[int, int]], *, baseline: str, choice: str
) -> list[str]:
    """Return each seed's macro CorLoc, its difference to that seed's baseline, and how that depends on the test videos.

    Args:
        results: of one split.
        seeds: of the results, in order.
        videos: (label, annotated frames) of every video by id.
        baseline: the method that others are compared with.
        choice: of the map threshold.
    """
    learnt = {method: found[choice] for method, found in results.items() if choice in found}
    base = learnt.get(baseline)
    head = ["method", *(f"seed {seed}" for seed in seeds)]
    extra = [f"minus {baseline}", "95 % of video draws", "draws above 0"] if base else []
    lines = [f"mean over classes, map threshold: {choice}", "", *table_head(*head, *extra).splitlines()]
    for method, same in learnt.items():
        if base is None or method == baseline:
            cells = [f"{result.macro:.1f}" for result in same] + [""] * len(extra)
        else:
            gaps = [result.macro - other.macro for result, other in zip(same, base, strict=True)]
            cells = [f"{result.macro:.1f} ({gap:+.1f})" for result, gap in zip(same, gaps, strict=True)]
            cells += [spread(gaps, sign="+"), *_luck(same, base, videos)]
        lines.append(table_row(method, *cells))
    return lines


def _luck(a: Sequence[CorLocResult], b: Sequence[CorLocResult], videos: Mapping[str, tuple[int, int]]) -> list[str]:
    if any(result.per_video.keys() != a[0].per_video.keys() for result in (*a, *b)):
        return ["videos differ", ""]
    drawn = resample_difference(a, b, videos)
    low, high = drawn.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [f"{low:+.1f} .. {high:+.1f}", f"{100 * float((drawn > 0).double().mean()):.0f} %"]


def resample_difference(
    a: Sequence[CorLocResult],
    b: Sequence[CorLocResult],
    videos: Mapping[str, tuple[int, int]],
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> Tensor:
    """Return the macro CorLoc of a minus b for draws of the videos with replacement, the same for both methods.

    Seeds are averaged, not drawn. A class without a video in the draw is left out, as in
    ``CorLocEvaluator.resample_macro``.

    Args:
        a: one result per seed, all of the same videos.
        b: the same of the other method.
        videos: (label, annotated frames) by video id.
        samples: number of draws, S.
        seed: of the draws.

    Returns:
        float64 ``[S]``, in percentage points.
    """
    names = sorted(a[0].per_video)
    labels = torch.tensor([videos[name][0] for name in names])
    frames = torch.tensor([videos[name][1] for name in names], dtype=torch.float64)
    by_class = torch.zeros(len(names), int(labels.max()) + 1, dtype=torch.float64)
    by_class[torch.arange(len(names)), labels] = frames
    gap = torch.tensor([_mean_of(a, name) - _mean_of(b, name) for name in names], dtype=torch.float64)
    drawn = torch.randint(len(names), (samples, len(names)), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(samples, len(names), dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(samples, len(names), dtype=torch.float64)
    )
    return (times @ (gap[:, None] * by_class) / (times @ by_class)).nanmean(dim=1)


def _mean_of(results: Sequence[CorLocResult], video: str) -> float:
    return statistics.mean(result.per_video[video] for result in results)


def _choice(result: CorLocResult) -> str:
    return result.protocol.threshold_choice
