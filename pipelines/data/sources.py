"""What ``--videos`` may name: a folder of tagged videos, one of YouTube-Objects, or ``yto_v1`` and ``yto_v2.2``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipelines.config.schema import RunConfig
from pipelines.data.failures import VideoFailure
from pipelines.data.prepare import Prepared, count_splits, prepare, require_training
from pipelines.parallel.placement import Placement
from pipelines.run.console import item_bar
from pipelines.run.places import data_folder
from tcam.errors import DataError
from tcam.video.data_folder.scan import scan_class_folders
from tcam.video.youtube_objects.dataset import YoutubeObjects, read_youtube_objects
from tcam.video.youtube_objects.layout import Version, find_youtube_objects

VERSIONS: Final[dict[str, Version]] = {"yto_v1": "v1.0", "yto_v2.2": "v2.2"}
SPLITS_FOLDER: Final = "splits"


def resolve_videos(videos: Path) -> Path:
    """Return the folder that ``--videos`` means; a folder of that name wins over the name of a data set.

    Raises:
        DataError: the data set is not there yet.
    """
    name = str(videos)
    if videos.exists() or name not in VERSIONS:
        return videos
    folder = data_folder() / name
    if find_youtube_objects(folder) is None:
        raise DataError(
            f"{name} is not in {folder}: fetch it with 'tcam data get {name}', name a copy that you have with "
            f"'tcam data get {name} --from FOLDER', or set TCAM_DATA to the folder that holds {name}/"
        )
    return folder


def check_folder(videos: Path, config: RunConfig) -> None:
    """Find out without opening a video whether there are videos to train from.

    Raises:
        DataError: there are none, or their tables do not fit them.
    """
    if find_youtube_objects(videos) is None:
        scan_class_folders(videos, convention=config.data.convention)


def find_split_lists(folder: Path, version: Version) -> Path | None:
    """Return the folder of imported split lists: beside the data, or beside the data set of that name."""
    names = [name for name, known in VERSIONS.items() if known == version]
    places = (folder / SPLITS_FOLDER, *(data_folder() / name / SPLITS_FOLDER for name in names))
    return next((place for place in places if (place / "train" / "image_ids.txt").is_file()), None)


def read_source(
    videos: Path, config: RunConfig, *, cache_dir: Path | None, for_training: bool, placement: Placement | None = None
) -> Prepared:
    """Index YouTube-Objects as it lies there, or probe and cache a folder of tagged videos.

    ``placement`` says where; None takes the processes that the settings name.

    Raises:
        DataError: the data cannot be used; for training, each class needs a training video.
    """
    with item_bar("prepare") as progress:
        found = find_youtube_objects(videos)
        if found is not None:
            dataset = read_youtube_objects(videos, splits=find_split_lists(videos, found[1]))
            return prepare_known(dataset, for_training=for_training)
        return prepare(
            videos,
            cache_dir=cache_dir,
            short_side=config.data.cache_short_side,
            placement=placement or Placement(config.data.workers),
            seed=config.seed,
            val_fraction=config.data.val_fraction,
            test_fraction=config.data.test_fraction,
            time_limit_s=config.data.time_limit_s,
            memory_limit_mb=config.data.memory_limit_mb,
            follow_links=config.data.follow_links,
            convention=config.data.convention,
            for_training=for_training,
            progress=progress,
        )


def prepare_known(dataset: YoutubeObjects, *, for_training: bool) -> Prepared:
    """Take a data set of image files as it is: nothing is copied.

    Raises:
        DataError: nothing usable in it or, for training, less than two classes or a class without a training video.
    """
    index = dataset.index
    failures = tuple(VideoFailure(*failure, failure[0].partition("/")[0]) for failure in dataset.failures)
    if not index.records:
        reason = f" ({failures[0].video_id}: {failures[0].reason})" if failures else ""
        raise DataError(f"no video can be used: {dataset.origin}{reason}")
    if for_training:
        if len(index.class_names) < 2:
            raise DataError(f"learning from tags needs at least two classes, found only {index.class_names[0]!r}")
        pairs = [(index.class_names[record.label], record.split) for record in index.records]
        require_training(index.class_names, pairs, "the split lists")
    warnings = tuple(VideoFailure(*warning) for warning in dataset.warnings)
    return Prepared(index, dataset.truth, failures, count_splits(index, dataset.origin), warnings)
