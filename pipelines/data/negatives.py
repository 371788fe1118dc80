"""Frames without any object (method ``negev``): background videos, and frames of training videos that are marked so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipelines.config.methods import METHODS
from pipelines.config.schema import RunConfig
from pipelines.data.prepare import Prepared, prepare
from pipelines.parallel.placement import Placement
from pipelines.run.console import console, item_bar
from pipelines.run.files import hash_json
from tcam.errors import DataError
from tcam.types import NO_CLASS, FrameTruth, Shot, VideoIndex, VideoRecord
from tcam.video.data_folder.scan import scan_background
from tcam.video.index import read_index, write_index

_FILE: Final = "background.json"
_WAY_OUT: Final = (
    "name a folder of videos without any object with --background, or mark frames of training videos in boxes.csv "
    "(rows without sides)"
)


def prepare_background(
    config: RunConfig, folder: Path, *, cache_dir: Path | None, placement: Placement | None
) -> Prepared:
    """Probe and cache the videos without any object; write background.json into the folder."""
    root = Path(str(config.data.background))
    with item_bar("background") as progress:
        prepared = prepare(
            root,
            cache_dir=cache_dir,
            placement=placement or Placement(config.data.workers),
            short_side=config.data.cache_short_side,
            time_limit_s=config.data.time_limit_s,
            memory_limit_mb=config.data.memory_limit_mb,
            follow_links=config.data.follow_links,
            for_training=False,
            source=scan_background(root),
            progress=progress,
        )
    write_index(prepared.index, folder / _FILE)
    console.print(f"{len(prepared.index.records)} videos without any object: {root}", markup=False)
    return prepared


def read_background(folder: Path, config: RunConfig) -> tuple[VideoRecord, ...]:
    """Read what ``prepare_background`` wrote; nothing if the settings name no background."""
    return () if config.data.background is None else read_index(folder / _FILE).records


def find_negatives(
    config: RunConfig, index: VideoIndex, truth: Sequence[FrameTruth], background: Sequence[VideoRecord]
) -> tuple[Slot, ...]:
    """List the shots without any object: those of background videos, then each marked frame of the training videos.

    Returns:
        Slots whose videos have the label ``NO_CLASS``; none for a method that does not need them.

    Raises:
        DataError: the method needs them, and there are none.
    """
    if not METHODS[config.method].negatives:
        return ()
    slots = [(_without_class(record), shot) for record in background for shot in record.shots]
    records = {record.video_id: _without_class(record) for record in index.of_split("train")}
    slots += [
        (records[item.video_id], Shot(item.frame_index, item.frame_index + 1))
        for item in truth
        if not item.boxes and item.video_id in records
    ]
    if not slots:
        raise DataError(f"method {config.method} needs training frames without any object, found none: {_WAY_OUT}")
    return tuple(slots)


def check_negatives(videos: Path, config: RunConfig, *, marked: bool) -> None:
    """Check, without opening a video, that there can be frames without any object if the method needs them.

    Args:
        videos: the data folder.
        config: all settings.
        marked: whether the data may mark some of its own frames so.

    Raises:
        DataError: the method needs them, and there are none.
    """
    if not METHODS[config.method].negatives:
        return
    if config.data.background is not None:
        scan_background(Path(config.data.background))
    elif not marked:
        raise DataError(f"method {config.method} needs frames without any object, found none in {videos}: {_WAY_OUT}")


def negatives_fingerprint(negatives: Sequence[Slot]) -> str:
    """Hash what training sees of these shots (cache files are named by content)."""
    return hash_json(
        [(Path(r.cache_path).name if r.cache_path else r.path, shot.start, shot.stop) for r, shot in negatives]
    )


def _without_class(record: VideoRecord) -> VideoRecord:
    return replace(record, label=NO_CLASS)


Slot = tuple[VideoRecord, Shot]
"""A video, and the shot that clips are drawn from; its label is ``NO_CLASS`` if the shot holds no object."""
