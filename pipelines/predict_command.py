"""What ``tcam predict`` does: find the videos, skip what is done, write one table or one per video."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.failures import VideoFailure, write_failures
from pipelines.files import hash_json
from pipelines.model import Model, open_model
from pipelines.parallel import staying
from pipelines.predict import find_sources
from pipelines.predict_many import FoundFrame, Known, Predict, Source, look_at, predict_all
from pipelines.runlog import console, package_versions
from pipelines.sinks import BoxSink, open_box_sink, sidecar
from pipelines.spread import AS_FITS, Spread
from tcam.errors import VideoError
from tcam.files import sweep_leftovers


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Flags of ``tcam predict``."""

    run: Path
    source: str
    output: str
    save_video: Path | None
    threshold: float | None
    class_name: str | None
    batch: int
    device: str
    spread: Spread = AS_FITS
    refine: bool = False
    half: bool = False


def predict_sources(request: PredictRequest, *, quiet: bool) -> int:
    """Localize in every source and write the box table, or one per video; gives the number of videos that failed."""
    console.quiet = quiet
    model = open_model(request.run, device=request.device, refine=request.refine, half=request.half)
    sources = [Source(video_id, path.absolute()) for video_id, path in find_sources(request.source)]
    threshold = model.threshold if request.threshold is None else request.threshold
    work = Predict(
        engine=model.packed,
        size=model.size,
        threshold=threshold,
        batch=request.batch,
        label=model.label_of(request.class_name),
        drawn=None if request.save_video is None else (request.save_video.absolute(), model.class_names),
    )
    metadata = {**model.about, "threshold": threshold, "versions": package_versions()}
    into_folder = request.output.endswith("/") or (request.output != "-" and Path(request.output).is_dir())
    with staying(request.spread):
        return (_into_folder if into_folder else _into_table)(sources, work, metadata, request, model)


def _into_table(
    sources: Sequence[Source], work: Predict, metadata: dict[str, object], request: PredictRequest, model: Model
) -> int:
    sink = open_box_sink(request.output, metadata=metadata)
    folder = Path() if request.output == "-" else Path(request.output).parent
    if request.output != "-":
        sweep_leftovers(folder, name=Path(request.output).name)
    videos, failures = _look(sources, request, model, hashed=False)
    with sink:
        for source, rows in predict_all(videos, work, spread=request.spread, memory_limit_mb=model.memory_limit_mb):
            try:
                _write_rows(rows, sink, model, work.threshold)
            except VideoError as error:
                failures.append(_fail(source, str(error)))
    _report_failures(failures, folder, len(sources))
    return len(failures)


def _into_folder(
    sources: Sequence[Source], work: Predict, metadata: dict[str, object], request: PredictRequest, model: Model
) -> int:
    """Write ``<folder>/<video>.csv`` for each video; one with a table of the same bytes and model is skipped."""
    folder = Path(request.output)
    if folder.is_dir():
        sweep_leftovers(folder)
    videos, failures = _look(sources, request, model, hashed=True)
    about = {key: value for key, value in metadata.items() if key != "versions"}
    settings = {**about, "batch": work.batch, "label": work.label}
    keys = {source: hash_json([known.content, settings]) for source, known in videos}
    todo = [(s, known) for s, known in videos if not _is_done(_table(folder, s), keys[s]) or work.drawn is not None]
    if len(todo) < len(videos):
        console.print(f"{len(videos) - len(todo)} of {len(sources)} videos are done already and skipped")
    for source, rows in predict_all(todo, work, spread=request.spread, memory_limit_mb=model.memory_limit_mb):
        table = _table(folder, source)
        sidecar(table).unlink(missing_ok=True)  # until the new table is whole, nothing says that it is done
        try:
            with open_box_sink(str(table), metadata={**metadata, "key": keys[source]}) as sink:
                _write_rows(rows, sink, model, work.threshold)
        except VideoError as error:
            failures.append(_fail(source, str(error)))
    (folder / "errors.csv").unlink(missing_ok=True)
    _report_failures(failures, folder, len(sources))
    return len(failures)


def _look(
    sources: Sequence[Source], request: PredictRequest, model: Model, *, hashed: bool
) -> tuple[list[tuple[Source, Known]], list[VideoFailure]]:
    limit = model.memory_limit_mb
    looks = look_at(sources, spread=request.spread, memory_limit_mb=limit, hashed=hashed)
    pairs = list(zip(sources, looks, strict=True))
    failures = [_fail(source, look) for source, look in pairs if isinstance(look, str)]
    return [(source, look) for source, look in pairs if isinstance(look, Known)], failures


def _table(folder: Path, source: Source) -> Path:
    return folder / f"{source.video_id}.csv"


def _is_done(table: Path, key: str) -> bool:
    try:
        about = json.loads(sidecar(table).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return table.is_file() and isinstance(about, dict) and about.get("key") == key


def _write_rows(rows: Iterator[FoundFrame], sink: BoxSink, model: Model, threshold: float) -> None:
    for found in rows:
        class_name = model.class_names[found.box.label]
        sink.write(found.box, size=found.size, class_name=class_name, threshold=threshold)


def _fail(source: Source, reason: str) -> VideoFailure:
    console.print(f"failed {source.video_id}: {reason}", markup=False)
    return VideoFailure(source.video_id, reason)


def _report_failures(failures: Sequence[VideoFailure], folder: Path, total: int) -> None:
    if not failures:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_failures(tuple(failures), folder / "errors.csv")
    console.print(f"{len(failures)} of {total} videos failed, listed in {folder / 'errors.csv'}")
