"""The most common data set: a folder of videos with one sub-folder per tag."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.schema import RunConfig
from pipelines.data.negatives import check_negatives
from pipelines.data.prepare import Prepared, ReadRequest, prepare
from tcam.video.data_folder.scan import scan_class_folders


def check_tagged_folder(videos: Path, config: RunConfig) -> None:
    """Check, without opening a video, that there is something to train from.

    Raises:
        DataError: there are none, their tables do not match them, or frames without an object are needed and missing.
    """
    source = scan_class_folders(videos, convention=config.data.convention)
    may_be_empty = bool(source.masks) or not all(source.boxes.values())
    check_negatives(videos, config, marked=may_be_empty)


def count_training(videos: Path) -> int:
    """Return the number of videos that are not named as validation or test videos, without opening one.

    Raises:
        DataError: there are none, or their tables do not match them.
    """
    return len({entry.path for entry in scan_class_folders(videos).entries if entry.split in (None, "train")})


def read_tagged_folder(videos: Path, request: ReadRequest) -> Prepared:
    """Probe the videos, write their clean copies, and build the index and the table of boxes.

    Raises:
        DataError: the data cannot be used or, for training, a class has no training video.
    """
    settings = request.config.data
    return prepare(
        videos,
        cache_dir=request.cache_dir,
        short_side=settings.cache_short_side,
        placement=request.placement,
        seed=request.config.seed,
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        time_limit_s=settings.time_limit_s,
        memory_limit_mb=settings.memory_limit_mb,
        follow_links=settings.follow_links,
        convention=settings.convention,
        for_training=request.for_training,
        progress=request.progress,
    )
