"""YouTube-Objects v1.0 and v2.2, read in place, image by image; nothing is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipelines.config.schema import RunConfig
from pipelines.data.failures import VideoFailure
from pipelines.data.negatives import check_negatives
from pipelines.data.prepare import Prepared, ReadRequest
from pipelines.data.splits import count_splits, require_training
from pipelines.run.places import data_folder
from tcam.errors import DataError
from tcam.video.youtube_objects.dataset import YoutubeObjects, read_youtube_objects
from tcam.video.youtube_objects.layout import Version, find_youtube_objects

VERSIONS: Final[dict[str, Version]] = {"yto_v1": "v1.0", "yto_v2.2": "v2.2"}
"""Names of the data set below ``data_folder()``, each with its version."""

SPLITS_FOLDER: Final = "splits"


def detect_youtube_objects(videos: Path) -> bool:
    """Whether a folder holds YouTube-Objects."""
    return find_youtube_objects(videos) is not None


def check_youtube_objects(videos: Path, config: RunConfig) -> None:
    """Check that the method needs no frames without any object, as the data set marks none.

    Raises:
        DataError: it needs them, and the settings name no background.
    """
    check_negatives(videos, config, marked=False)


def read_youtube_objects_folder(videos: Path, request: ReadRequest) -> Prepared:
    """Index the images and read their boxes.

    Raises:
        DataError: no video is usable or, for training, there are fewer than two classes or one has no training video.
    """
    found = find_youtube_objects(videos)
    if found is None:
        raise DataError(f"{videos}: expected YouTube-Objects, found something else")
    return prepare_known(
        read_youtube_objects(videos, splits=find_split_lists(videos, found[1])), for_training=request.for_training
    )


def find_split_lists(folder: Path, version: Version) -> Path | None:
    """Return the folder of imported split lists: beside the data, or below ``data_folder()``."""
    names = [name for name, known in VERSIONS.items() if known == version]
    places = (folder / SPLITS_FOLDER, *(data_folder() / name / SPLITS_FOLDER for name in names))
    return next((place for place in places if (place / "train" / "image_ids.txt").is_file()), None)


def prepare_known(dataset: YoutubeObjects, *, for_training: bool) -> Prepared:
    """Check a data set after reading, and describe it.

    Raises:
        DataError: no video is usable or, for training, there are fewer than two classes or one has no training video.
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
