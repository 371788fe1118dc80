"""What ``--videos`` may name: the table of data sets, ``DATASETS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.config.schema import RunConfig
from pipelines.data.prepare import Prepared, ReadRequest
from pipelines.data.tagged_folder import check_tagged_folder, count_training, read_tagged_folder
from pipelines.data.youtube_objects import (
    VERSIONS,
    check_youtube_objects,
    detect_youtube_objects,
    read_youtube_objects_folder,
)
from pipelines.parallel.placement import Placement
from pipelines.run.console import item_bar
from pipelines.run.places import data_folder
from tcam.errors import DataError


def _check_nothing(_: Path, __: RunConfig) -> None:
    """Leave all checks to ``read``."""


def _count_nothing(_: Path) -> None:
    """Take a data set for a large one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A row of ``DATASETS``.

    Attributes:
        detect: whether a folder holds this data set; cheap, opens no video.
        read: reads the videos and boxes of a folder. Raises a ``DataError`` if they cannot be used.
        check: raises a ``DataError`` if there is nothing to train from. Called before a run folder is made.
        count: returns the number of training videos, or None where the data set is as large as those of the papers;
            cheap, opens no video. Raises a ``DataError`` if there are none.
        names: names that ``--videos`` accepts for it, once ``tcam data get`` has put it below ``data_folder()``.
    """

    detect: Callable[[Path], bool]
    read: Callable[[Path, ReadRequest], Prepared]
    check: Callable[[Path, RunConfig], None] = _check_nothing
    count: Callable[[Path], int | None] = _count_nothing
    names: tuple[str, ...] = ()


DATASETS: Final[dict[str, Dataset]] = {
    "youtube-objects": Dataset(
        detect=detect_youtube_objects,
        read=read_youtube_objects_folder,
        check=check_youtube_objects,
        names=tuple(VERSIONS),
    ),
}
"""The data sets with a layout of their own. Any other folder is one of tagged videos.

Your own file may add a row: see docs/extending.md.
"""

_TAGGED_FOLDER: Final = Dataset(
    detect=Path.is_dir, read=read_tagged_folder, check=check_tagged_folder, count=count_training
)


def find_dataset(videos: Path) -> Dataset:
    """Return the row that a folder belongs to; by default, a folder of tagged videos."""
    return next((dataset for dataset in DATASETS.values() if dataset.detect(videos)), _TAGGED_FOLDER)


def resolve_videos(videos: Path) -> Path:
    """Return the folder that ``--videos`` means; an existing folder wins over a data set of the same name.

    Raises:
        DataError: the data set has not been downloaded yet.
    """
    name = str(videos)
    known = next((dataset for dataset in DATASETS.values() if name in dataset.names), None)
    if videos.exists() or known is None:
        return videos
    folder = data_folder() / name
    if not known.detect(folder):
        raise DataError(
            f"{name} is not in {folder}: fetch it with 'tcam data get {name}', name a copy that you have with "
            f"'tcam data get {name} --from FOLDER', or set TCAM_DATA to the folder that holds {name}/"
        )
    return folder


def check_videos(videos: Path, config: RunConfig) -> None:
    """Check, without opening a video, that there are videos to train from.

    Raises:
        DataError: there are none, their tables do not match them, or frames without an object are needed and missing.
    """
    find_dataset(videos).check(videos, config)


def read_source(
    videos: Path, config: RunConfig, *, cache_dir: Path | None, for_training: bool, placement: Placement | None = None
) -> Prepared:
    """Read the videos and boxes of a folder of any data set.

    Args:
        videos: the folder.
        config: all settings.
        cache_dir: folder for clean copies; None reads the originals.
        for_training: require two classes, each with a usable training video.
        placement: where videos are probed; None uses the processes that the settings name.

    Raises:
        DataError: the data cannot be used.
    """
    with item_bar("prepare") as progress:
        places = placement or Placement(config.data.workers)
        return find_dataset(videos).read(videos, ReadRequest(config, cache_dir, for_training, places, progress))
