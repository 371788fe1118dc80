"""Turn a folder of tagged videos into an index for training: probe all, list broken ones, write clean copies.

Every file is opened in a child process with a time limit. In a clean copy every frame is a key frame, so that a random
frame is read by decoding one, and the short side is limited. Copies are named by content, and a rerun skips them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipelines.config.schema import RunConfig
from pipelines.data.copies import Copies, describe_copies, find_copies, of_every_tag, other_tags, several_note
from pipelines.data.failures import VideoFailure
from pipelines.data.probe_and_copy import GoodVideo, VideoJob, check_video
from pipelines.data.splits import check_training, count_splits, describe_origin, draw_splits
from pipelines.data.truth import collect_truth
from pipelines.parallel.map import ItemFailure, ordered_map
from pipelines.parallel.placement import Placement
from pipelines.run.progress import Progress
from tcam.errors import DataError
from tcam.files import file_size
from tcam.types import FrameTruth, Shot, VideoIndex, VideoRecord
from tcam.video.container import require_av
from tcam.video.data_folder.clip_tables import FIND_OUT, BoxConvention
from tcam.video.data_folder.find import PassedOver
from tcam.video.data_folder.scan import FolderEntry, FolderSource, scan_class_folders
from tcam.video.frame_files import is_image_sequence

_BYTES_PER_S: Final = 200_000
"""Slowest pace that counts as progress: large files get more time, small ones that decode forever do not."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The result of ``prepare``.

    ``failures`` are the videos left out; ``warnings`` list videos used only in part, boxes outside their frame, copies
    of a video and unused columns; ``split_note`` tells where the splits came from and which boxes were dropped;
    ``variable_rate`` are the ids of videos with a variable frame rate. ``passed`` are the files that belong to nothing,
    ``files`` counts all files by kind.
    """

    index: VideoIndex
    truth: tuple[FrameTruth, ...]
    failures: tuple[VideoFailure, ...] = ()
    split_note: str = ""
    warnings: tuple[VideoFailure, ...] = ()
    variable_rate: tuple[str, ...] = ()
    passed: tuple[PassedOver, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """The arguments for the reader of a data set.

    ``cache_dir`` is the folder for clean copies (None: read the originals). ``for_training`` requires two classes, each
    with a usable training video. ``placement`` says where videos are probed; ``progress`` is called after each.
    """

    config: RunConfig
    cache_dir: Path | None
    for_training: bool
    placement: Placement
    progress: Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _Limits:
    time_s: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the videos: usable ones, failures, copies; ``origin`` says who chose the splits."""

    good: Mapping[str, GoodVideo]
    failures: tuple[VideoFailure, ...]
    copies: Copies
    origin: str


def prepare(
    root: Path,
    *,
    cache_dir: Path | None,
    placement: Placement,
    short_side: int = 256,
    seed: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    time_limit_s: float = 30.0,
    memory_limit_mb: float = 4000.0,
    progress: Callable[[Progress], None] | None = None,
    follow_links: bool = False,
    for_training: bool = True,
    source: FolderSource | None = None,
    convention: BoxConvention = FIND_OUT,
) -> Prepared:
    """Probe the videos of a data folder, write their clean copies, and build the index and the table of boxes.

    Args:
        root: ``<root>/<class>/<clip>``, see ``tcam.video.data_folder.scan``.
        cache_dir: folder for clean copies; None reads the originals in place (slower, more memory).
        placement: where the work runs; in this process itself, the limits are not enforced.
        short_side: of the copies; never scaled up.
        seed: of the splits, drawn if ``clips.csv`` has none.
        val_fraction: share of videos drawn for validation, per class.
        test_fraction: share of videos drawn for testing, per class.
        time_limit_s: per video, plus a second per 200 kB.
        memory_limit_mb: of a process that works on a video.
        progress: called after every video.
        follow_links: also use videos that are links to places outside ``root``.
        for_training: require two classes, each with a usable training video; data to evaluate on needs neither.
        source: the contents of the folder; None takes its sub-folders as classes.
        convention: of its table of boxes.

    Raises:
        DataError: no usable videos, or a class without a training video.
        MissingPartError: PyAV is not installed.
        ValueError: a short side below 16, or fractions that leave nothing for training.
    """
    source = source or scan_class_folders(Path(root), min_classes=2 if for_training else 1, convention=convention)
    if any(not is_image_sequence(entry.path) for entry in source.entries):
        require_av()
    if cache_dir is not None:
        _open_cache(cache_dir, short_side)
    jobs, strays = _plan(source, cache_dir, short_side, follow_links)
    checked = _check_all(jobs, placement, _Limits(time_limit_s, memory_limit_mb), progress)
    outcomes = of_every_tag(source.entries, strays | checked)
    good = {e.video_id: known for e in source.entries if isinstance(known := outcomes[e.video_id], GoodVideo)}
    failures = _list_failures(source, outcomes)
    if for_training or not good:
        _require_every_class(source, good, failures)
    kept = [entry for entry in source.entries if entry.video_id in good]
    copies = find_copies(kept)
    entries = draw_splits(kept, copies, seed, val_fraction, test_fraction)
    if for_training:
        check_training(source, entries, copies)
    return _build(source, entries, _Known(good, failures, copies, describe_origin(kept, seed)), convention)


def _list_failures(source: FolderSource, outcomes: Mapping[str, GoodVideo | str]) -> tuple[VideoFailure, ...]:
    return tuple(
        VideoFailure(entry.video_id, reason, entry.class_name)
        for entry in source.entries
        if isinstance(reason := outcomes[entry.video_id], str)
    )


def _build(
    source: FolderSource,
    entries: Sequence[FolderEntry],
    known: _Known,
    convention: BoxConvention,
) -> Prepared:
    """Build the index and the table of boxes of the usable videos."""
    good, others = known.good, other_tags(known.copies)
    records = (_record(entry, good[entry.video_id], source.class_names, others) for entry in entries)
    index = VideoIndex(source.class_names, tuple(records))
    truth, dropped, outside = collect_truth(source, index, convention)
    damaged = [VideoFailure(v, g.probe.warning) for v, g in good.items() if g.probe.warning is not None]
    lost = f"; the boxes of {dropped} frames past the end of their video were dropped" if dropped else ""
    variable = tuple(video_id for video_id, found in good.items() if found.probe.variable_rate)
    found = (*describe_copies(entries, known.copies), *source.notes, *outside)
    warnings = (*(VideoFailure(*one) for one in found), *damaged)
    split_note = count_splits(index, known.origin) + lost + several_note(known.copies)
    return Prepared(index, truth, known.failures, split_note, warnings, variable, source.passed, source.files or {})


def _open_cache(cache_dir: Path, short_side: int) -> None:
    """Create the cache folder and remove what killed runs left there."""
    if short_side < 16:
        raise ValueError(f"short_side must be at least 16, got {short_side}")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        for leftover in cache_dir.glob(".*.tmp"):
            owner = leftover.suffixes[-2][1:] if len(leftover.suffixes) > 1 else ""
            if owner.isdigit() and not Path("/proc", owner).exists() and Path("/proc").is_dir():
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot use the cache folder {cache_dir} ({error.strerror}): check it or name another"
        ) from error


def _plan(
    source: FolderSource, cache_dir: Path | None, short_side: int, follow_links: bool
) -> tuple[list[VideoJob], dict[str, GoodVideo | str]]:
    """Return the jobs, and the problems of links that lead out of the folder."""
    real_root = source.root.resolve()
    jobs: list[VideoJob] = []
    planned: set[Path] = set()
    strays: dict[str, GoodVideo | str] = {}
    for entry in source.entries:
        stray = None if follow_links else _find_stray_link(entry.path, real_root)
        if stray:
            strays[entry.video_id] = (
                f"{stray} is a link out of the data folder: copy the file there, or set data.follow_links=true"
            )
        elif entry.path not in planned:
            planned.add(entry.path)
            jobs.append(VideoJob(entry.video_id, entry.path.absolute(), cache_dir, short_side))
    return jobs, strays


def _check_all(
    jobs: Sequence[VideoJob], placement: Placement, limits: _Limits, progress: Callable[[Progress], None] | None
) -> dict[str, GoodVideo | str]:
    """Return for each video what the check found, or the reason why it cannot be used."""
    results = ordered_map(
        _start_checking,
        jobs,
        placement=placement,
        time_limit_s=lambda job: limits.time_s + file_size(job.path) / _BYTES_PER_S,
        memory_limit_mb=limits.memory_mb,
        progress=progress,
    )
    return {
        job.video_id: result.reason if isinstance(result, ItemFailure) else result
        for job, result in zip(jobs, results, strict=True)
    }


def _start_checking() -> Callable[[VideoJob], GoodVideo]:
    return check_video


def _find_stray_link(path: Path, real_root: Path) -> str | None:
    """Return the name of what leads out of the data folder: the video itself, or an image of a frame folder."""
    inside = [path, *(child for child in _children(path) if child.is_symlink())]
    for candidate in inside:
        with suppress(OSError, RuntimeError):
            if not candidate.resolve().is_relative_to(real_root):
                return candidate.name
    return None


def _children(path: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from path.iterdir()


def _require_every_class(source: FolderSource, good: Mapping[str, GoodVideo], failures: Sequence[VideoFailure]) -> None:
    usable = {entry.class_name for entry in source.entries if entry.video_id in good}
    empty = [name for name in source.class_names if name not in usable]
    if empty:
        first = next(failure for failure in failures if failure.class_name == empty[0])
        raise DataError(
            f"no video of the class {empty[0]!r} in {source.root} can be used "
            f"({len(failures)} of {len(source.entries)} are broken; {first.video_id}: {first.reason})"
        )


def _record(
    entry: FolderEntry, found: GoodVideo, class_names: Sequence[str], others: Mapping[str, tuple[str, ...]]
) -> VideoRecord:
    probe, split = found.probe, entry.split
    if split is None:
        raise AssertionError(f"{entry.video_id} was given no split")
    return VideoRecord(
        video_id=entry.video_id,
        path=os.path.abspath(entry.path),  # noqa: PTH100  # keeps links as they are
        label=class_names.index(entry.class_name),
        num_frames=probe.num_frames,
        size=probe.size,
        fps=probe.fps,
        split=split,
        shots=(Shot(0, probe.num_frames),),
        decoder=probe.decoder,
        rotation=probe.rotation,
        cache_path=found.cache_path,
        also=tuple(map(class_names.index, others.get(entry.video_id, ()))),
    )
