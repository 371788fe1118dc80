"""What ``tcam predict`` does: find the videos, skip what is done, write one table or one per video."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.data.failures import VideoFailure, write_failures
from pipelines.data.find import FoundSources, Source, find_sources
from pipelines.inference.box_table import BoxSink, open_box_sink, sidecar
from pipelines.inference.frames import FramePrediction
from pipelines.inference.outputs import check_outputs, free_names, is_replaceable
from pipelines.inference.videos import Known, Predict, look_at, predict_all
from pipelines.models.engine import Model, Refinement
from pipelines.models.open import open_model
from pipelines.parallel.map import staying
from pipelines.parallel.placement import AUTO, Placement
from pipelines.run.console import console
from pipelines.run.environment import package_versions
from pipelines.run.files import hash_json
from pipelines.run.signals import finishing
from tcam.boxes.over_time import BoxFollower, OverTime, TagFollower
from tcam.errors import ConfigError, StreamError, VideoError
from tcam.files import sweep_leftovers
from tcam.video.data_folder.find import summarize_passed


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files that a prediction writes: one table, or one per source (``tables``), and the list of failures."""

    table: str | None
    tables: dict[Source, Path]
    errors: Path


def predict_sources(
    run: Path,
    source: str,
    *,
    output: str,
    save_video: Path | None = None,
    threshold: float | None = None,
    class_name: str | None = None,
    batch: int = 8,
    device: str = "auto",
    placement: Placement = AUTO,
    refine: Refinement = "none",
    half: bool = False,
    track: bool = False,
    quiet: bool = False,
) -> int:
    """Localize in every source and write the box table, or one per video; return the number of videos that failed.

    Raises:
        DataError: no such source, or no finished run.
        ConfigError: an output would replace a source, or a file that tcam did not write.
    """
    console.quiet = quiet
    found = find_sources(source)
    found = replace(found, sources=tuple(_with_overlays(found, save_video)))
    outputs = _plan_outputs(found.sources, output)
    model = open_model(run, device=device, refine=refine, half=half)
    passed = summarize_passed(found.passed)
    if passed is not None:
        console.print(passed, markup=False)
    work = _work(model, threshold=threshold, class_name=class_name, batch=batch)
    with staying(placement):
        return _Prediction(work, model, outputs, placement=placement, track=track).run(found)


def _work(model: Model, *, threshold: float | None, class_name: str | None, batch: int) -> Predict:
    return Predict(
        engine=model.packed,
        size=model.size,
        threshold=model.threshold if threshold is None else threshold,
        batch=batch,
        class_names=model.class_names,
        label=model.label_of(class_name),
        every_tag=model.several_tags,
        walks=model.walks,
    )


def _with_overlays(found: FoundSources, folder: Path | None) -> Iterator[Source]:
    """Yield each source with the path of its overlay video, which must not be in a folder searched for videos."""
    names = free_names([source.output_name for source in found.sources], ".mp4")
    for source in found.sources:
        path = source.path.absolute()
        overlay = None if folder is None else folder.absolute() / names[source.output_name]
        yield replace(source, path=path if source.live is None else source.path, overlay=overlay)
    searched = [] if folder is None else [place for place in found.folders if _lies_in(folder, place)]
    if searched:
        raise ConfigError(
            f"--save-video {folder}: drawn videos in {searched[0]} would be among the videos to predict next time; "
            "choose a folder outside"
        )


def _lies_in(folder: Path, other: Path) -> bool:
    return folder.resolve().is_relative_to(other.resolve())


def _plan_outputs(sources: Sequence[Source], output: str) -> Outputs:
    """Return all files to write; refuse those that are an input or that tcam did not write."""
    inputs = [source.path for source in sources if source.live is None]
    check_outputs([s.overlay for s in sources if s.overlay is not None], inputs, flag="--save-video")
    if output == "-":
        return Outputs("-", {}, _errors_file(Path(), []))
    target = Path(output)
    if not (output.endswith("/") or target.is_dir()):
        check_outputs([target], inputs, flag="-o")
        return Outputs(output, {}, _errors_file(target.parent, [target]))
    names = free_names([source.output_name for source in sources], ".csv", reserved=["errors.csv"])
    tables = {source: target / names[source.output_name] for source in sources}
    check_outputs(tables.values(), inputs, flag="-o")
    return Outputs(None, tables, _errors_file(target, list(tables.values())))


def _errors_file(folder: Path, tables: Sequence[Path]) -> Path:
    """Return the path of the list of failures: errors.csv, with a number if that is a table or not tcam's."""
    paths = (folder / ("errors.csv" if number == 1 else f"errors-{number}.csv") for number in itertools.count(1))
    return next(path for path in paths if path not in tables and is_replaceable(path))


class _Prediction:
    """One call of ``tcam predict``: how its rows are made, and where they go."""

    def __init__(self, work: Predict, model: Model, outputs: Outputs, *, placement: Placement, track: bool) -> None:
        self._work, self._model, self._outputs = work, model, outputs
        self._placement, self._track = placement, track
        self._metadata = {**model.about, "threshold": work.threshold, "versions": package_versions()}
        self._failures: list[VideoFailure] = []

    def run(self, found: FoundSources) -> int:
        """Predict all sources; return the number of those that failed."""
        for missing in found.missing:
            self._fail(missing.video_id, missing.reason)
        (self._into_table if self._outputs.table is not None else self._into_folder)(found.sources)
        total = len(found.sources) + len(found.missing)
        self._report_failures(total)
        return len(self._failures)

    def _into_table(self, sources: Sequence[Source]) -> None:
        target = self._outputs.table or "-"
        sink = open_box_sink(target, metadata=self._metadata)
        if target != "-":
            sweep_leftovers(Path(target).parent, name=Path(target).name)
        videos = self._look(sources, hashed=False)
        with sink:
            for source, rows in self._predict(videos):
                try:
                    self._write_rows(rows, sink, source)
                except VideoError as error:
                    self._fail(source.video_id, str(error))

    def _into_folder(self, sources: Sequence[Source]) -> None:
        """Write ``<folder>/<video>.csv`` for each video, unless it was made from the same bytes and model before."""
        folder = self._outputs.errors.parent  # also of the tables
        if folder.is_dir():
            sweep_leftovers(folder)
        videos = self._look(sources, hashed=True)
        about = {key: value for key, value in self._metadata.items() if key != "versions"}
        settings = {**about, "batch": self._work.batch, "label": self._work.label, "track": self._track}
        keys = {source: hash_json([known.content, settings]) for source, known in videos}
        tables = self._outputs.tables
        todo = [(s, k) for s, k in videos if s.live or s.overlay or not _is_done(tables[s], keys[s])]
        if len(todo) < len(videos):
            console.print(f"{len(videos) - len(todo)} of {len(sources)} videos are done already and skipped")
        for source, rows in self._predict(todo):
            table = tables[source]
            with suppress(OSError):  # opening the table reports a name that is too long
                sidecar(table).unlink(missing_ok=True)  # until the new table is complete, none counts as done
            try:
                with open_box_sink(str(table), metadata={**self._metadata, "key": keys[source]}) as sink:
                    self._write_rows(rows, sink, source)
            except VideoError as error:
                self._fail(source.video_id, str(error))
        self._outputs.errors.unlink(missing_ok=True)

    def _look(self, sources: Sequence[Source], *, hashed: bool) -> list[tuple[Source, Known]]:
        limit = self._model.memory_limit_mb
        files = [source for source in sources if source.live is None]
        looks = look_at(files, placement=self._placement, memory_limit_mb=limit, hashed=hashed)
        pairs = list(zip(files, looks, strict=True))
        for source, look in pairs:
            if isinstance(look, str):
                self._fail(source.video_id, look)
            else:
                for note in look.notes:
                    console.print(f"{source.video_id}: {note}", markup=False)
        live = [(source, Known(None, 0)) for source in sources if source.live is not None]
        return [(source, look) for source, look in pairs if isinstance(look, Known)] + live

    def _predict(self, videos: Sequence[tuple[Source, Known]]) -> Iterator[tuple[Source, Iterator[FramePrediction]]]:
        files = [video for video in videos if video[0].live is None]
        yield from predict_all(
            files, self._work, placement=self._placement, memory_limit_mb=self._model.memory_limit_mb
        )
        for source, _ in videos:
            if source.live is not None:
                from pipelines.streaming.run import predict_live

                with finishing():  # an endless source ends by a signal: what was found is written
                    yield source, predict_live(source, source.live, self._work)

    def _write_rows(self, rows: Iterator[FramePrediction], sink: BoxSink, source: Source) -> None:
        follow = self._follower()
        try:
            for found in rows:
                for box in (found.box, *found.also):
                    followed = box if follow is None else follow(box, found.size)
                    sink.write(followed, size=found.size, threshold=self._work.threshold)
        except StreamError as error:  # rows found before are kept
            self._fail(source.video_id, str(error))

    def _follower(self) -> BoxFollower | TagFollower | None:
        if not self._track:
            return None
        return TagFollower(OverTime()) if self._work.every_tag else BoxFollower(OverTime())

    def _fail(self, video_id: str, reason: str) -> None:
        console.print(f"failed {video_id}: {reason}", markup=False)
        self._failures.append(VideoFailure(video_id, reason))

    def _report_failures(self, total: int) -> None:
        if not self._failures:
            return
        errors = self._outputs.errors
        errors.parent.mkdir(parents=True, exist_ok=True)
        write_failures(tuple(self._failures), errors)
        console.print(f"{len(self._failures)} of {total} videos failed, listed in {errors}")


def _is_done(table: Path, key: str) -> bool:
    try:
        about = json.loads(sidecar(table).read_text(encoding="utf-8"))
        return table.is_file() and isinstance(about, dict) and about.get("key") == key
    except (OSError, ValueError):
        return False
