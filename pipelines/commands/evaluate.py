"""What ``tcam evaluate`` and ``tcam.evaluate`` do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.commands.prepare import PREPARED_FILES
from pipelines.config.schema import load_config
from pipelines.data.failures import VideoFailure
from pipelines.data.sources import resolve_videos
from pipelines.data.stage import prepare_data
from pipelines.evaluation.metrics import list_metrics
from pipelines.evaluation.printing import print_metrics, print_table
from pipelines.evaluation.results import PER_FRAME, RESULTS, Rows, read_evaluation, save_results
from pipelines.evaluation.score import ScoredSet, results_table
from pipelines.inference.outputs import check_output_folder, mark_output_folder
from pipelines.models.engine import Refinement
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.refinement.refined import refined_localizers
from pipelines.models.run import REFINED, Run, load_localizers, load_run, videos_of_run
from pipelines.models.thresholds import read_other_thresholds, read_thresholds, save_thresholds
from pipelines.parallel.placement import AUTO, Placement
from pipelines.pipeline import Chosen, choose_thresholds, picture_source, score_split
from pipelines.report.run import write_run_report
from pipelines.run.console import console
from pipelines.run.folder import open_run
from tcam.errors import ConfigError, DataError, some_of
from tcam.types import Components, FrameTruth, Split, VideoIndex

if TYPE_CHECKING:
    import pandas

EVALUATION_FILES = (*PREPARED_FILES, RESULTS, PER_FRAME, "report")

EvaluatedSplit = Split | Literal["all"]
"""Which videos are evaluated."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The rows of an evaluation, and the videos that could not be read."""

    rows: Rows
    failures: tuple[VideoFailure, ...]

    def as_values(self) -> list[dict[str, object]]:
        """Return the rows as values that JSON can hold."""
        return [{"method": name, **result.as_dict()} for name, result in self.rows]

    def as_frame(self) -> pandas.DataFrame:
        """Return the rows as a table, with groups as columns such as ``per_class.dog``; per_video is left out."""
        import pandas

        rows = []
        for name, result in self.rows:
            low, high = result.interval or (math.nan, math.nan)
            values: dict[str, object] = {
                "method": name,
                "threshold_choice": result.protocol.threshold_choice,
                "threshold": math.nan if result.threshold is None else result.threshold,
                "macro": result.macro,
                "micro": result.micro,
                "per_class": dict(result.per_class),
                "interval": {"low": low, "high": high},
                "thresholds_per_class": dict(result.thresholds_per_class or {}),
            }
            known = {**values, **result.as_dict(), **values}  # the most important columns come first
            rows.append({key: value for key, value in known.items() if key != "per_video"})
        table = pandas.json_normalize(rows)
        table.attrs["failures"] = {failure.video_id: failure.reason for failure in self.failures}
        return table


def evaluate_run(
    folder: Path,
    *,
    videos: Path | None = None,
    split: EvaluatedSplit = "test",
    output: Path | None = None,
    device: str = "auto",
    benchmark: bool = False,
    refine: Refinement = "none",
    ddt: bool = False,
    overrides: Sequence[str] = (),
    placement: Placement = AUTO,
    quiet: bool = False,
) -> Evaluated:
    """Score a run on videos with boxes, write results and report; the arguments are the flags of ``tcam evaluate``.

    Raises:
        TcamError: the run is not finished, the videos have no boxes or other classes, or ``output`` is not tcam's.
    """
    console.quiet = quiet
    if overrides and videos is None:
        raise ConfigError("--set is for the videos of --videos FOLDER: name them, or leave it out")
    _claim_results(open_run(folder), output, videos)
    run = load_run(folder, device=device)
    components: Components = "largest contour" if benchmark else "largest"
    plain = load_localizers(run)
    refined = refined_localizers(plain, read_thresholds(_stored(run))[0], refine, run.config.cam.walk)
    localizers = {**plain, **refined}
    if benchmark:  # other box rules need thresholds of their own
        chosen = choose_thresholds(run, localizers, components=components, placement=placement)
    else:
        chosen = _stored_and_refined(run, refined, refine, placement=placement, keep=output is None)
    thresholds, chosen_on = chosen.thresholds, chosen.chosen_on
    special = [name for name, asked in (("benchmark", benchmark), (refine, bool(refined)), ("ddt", ddt)) if asked]
    target = output or _own_results(run.folder, split, special, own_videos=videos is None)
    failures: tuple[VideoFailure, ...] = ()
    if videos is not None:
        run, failures = _with_videos(run, videos, overrides, target, placement)
    scored = score_split(
        run,
        localizers,
        split,
        chosen=thresholds,
        components=components,
        placement=placement,
        ddt=plain[run.config.cam.method] if ddt else None,
    )
    rows = results_table(scored, thresholds, chosen_on, chosen.others)
    print_table(rows, f"{split} split of {videos or 'the videos of the run'}")
    print_metrics(list_metrics(scored.methods, chosen_on))
    results = target / "evaluation" if target == run.folder else target
    save_results(results, rows, scored.methods, thresholds, split=split, chosen_on=chosen_on)
    _write_report(run, localizers, thresholds, results, target / "report")
    return Evaluated(rows, failures + _scoring_failures(scored))


def _stored(run: Run) -> Path:
    return run.folder / "evaluation" / "thresholds.json"


def _stored_and_refined(
    run: Run, refined: Mapping[str, NetworkLocalizer], refine: Refinement, *, placement: Placement, keep: bool
) -> Chosen:
    """Return the thresholds of the run, and new ones for refined maps, which ``keep`` stores with the run."""
    thresholds, chosen_on = read_thresholds(_stored(run))
    others = read_other_thresholds(_stored(run))
    if refined:
        found = choose_thresholds(run, refined, placement=placement)
        thresholds = {**thresholds, **found.thresholds}
        others = {way: {**chosen, **found.others.get(way, {})} for way, chosen in others.items()}
        if keep:
            save_thresholds(run.folder / REFINED[refine], found.thresholds, chosen_on=chosen_on, presence={})
    return Chosen(thresholds, chosen_on, others)


def _write_report(
    run: Run, localizers: Mapping[str, NetworkLocalizer], thresholds: Mapping[str, float], results: Path, output: Path
) -> None:
    overlay = output / "overlay.mp4"
    page = write_run_report(
        run.folder,
        read_evaluation(results),
        picture_source(run, localizers),
        output=output,
        thresholds=thresholds,
        video=overlay if overlay.is_file() else None,
    )
    console.print(f"report: {page}")


def _own_results(run: Path, split: str, special: Sequence[str], *, own_videos: bool) -> Path:
    """Return the folder of an evaluation in its run: the run itself for its own test videos and usual settings."""
    if own_videos and split == "test" and not special:
        return run
    return run / "-".join(["evaluation", split, *special])


def _claim_results(run: Path, output: Path | None, videos: Path | None) -> None:
    """Mark the folder of an evaluation as tcam's; refuse one that holds other files or lies among the videos."""
    if output is None or output.resolve() == run.resolve():
        return
    inputs = [resolve_videos(videos)] if videos is not None else []
    with suppress(DataError):  # a run that does not record where its videos are
        inputs.append(videos_of_run(run))
    check_output_folder(output, EVALUATION_FILES, inputs, flag="-o")
    mark_output_folder(output)


def _with_videos(
    run: Run, videos: Path, overrides: Sequence[str], output: Path, placement: Placement
) -> tuple[Run, tuple[VideoFailure, ...]]:
    """Replace the run's videos by others; their index is written to ``output``."""
    source = resolve_videos(videos)
    config = load_config(run.folder / "config.yaml", overrides)
    prepared = prepare_data(
        source, config, output, cache_dir=None, for_training=False, placement=placement.for_probing()
    )
    index, truth = _with_classes_of(run, prepared.index, prepared.truth)
    return replace(run, index=index, truth=truth), prepared.failures


def _with_classes_of(
    run: Run, index: VideoIndex, truth: tuple[FrameTruth, ...]
) -> tuple[VideoIndex, tuple[FrameTruth, ...]]:
    """Renumber the labels of other data to match the run's classes."""
    unknown = [name for name in index.class_names if name not in run.index.class_names]
    if unknown:
        raise DataError(f"the videos hold class '{unknown[0]}'; the run knows {some_of(run.index.class_names)}")
    labels = [run.index.class_names.index(name) for name in index.class_names]
    records = tuple(
        replace(record, label=labels[record.label], also=tuple(labels[label] for label in record.also))
        for record in index.records
    )
    return (
        replace(index, class_names=run.index.class_names, records=records),
        tuple(replace(item, label=labels[item.label]) for item in truth),
    )


def _scoring_failures(scored: ScoredSet) -> tuple[VideoFailure, ...]:
    for video_id, reason in scored.failures:
        console.print(f"failed {video_id}: {reason}", markup=False)
    return tuple(VideoFailure(*failure) for failure in scored.failures)
