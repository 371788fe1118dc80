"""errors.csv: the videos that could not be used, and why."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcam.video.index import write_whole


@dataclass(frozen=True, slots=True)
class VideoFailure:
    """A video and what is wrong with it, in one line; ``class_name`` is its tag, if known."""

    video_id: str
    reason: str
    class_name: str = ""


def write_failures(failures: Sequence[VideoFailure], path: Path) -> None:
    """Write errors.csv (video, reason), complete or not at all; without failures, only its header.

    Raises:
        DataError: the file cannot be written.
    """
    with write_whole(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("video", "reason"))
        table.writerows((failure.video_id, failure.reason) for failure in failures)
