"""Splits of videos: drawn by tag, checked for training, described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.data.copies import Copies, other_tags, with_copies, without_copies
from tcam.errors import DataError
from tcam.types import SPLITS, Split, VideoIndex
from tcam.video.data_folder.scan import FolderEntry, FolderSource, assign_splits


def draw_splits(
    videos: Sequence[FolderEntry], copies: Copies, seed: int, val_fraction: float, test_fraction: float
) -> tuple[FolderEntry, ...]:
    """Draw the splits that are not given; copies of a video share its split, whatever their tags."""
    generator, own = torch.Generator().manual_seed(seed), without_copies(videos, copies)
    drawn = assign_splits(own, val_fraction=val_fraction, test_fraction=test_fraction, generator=generator)
    return with_copies(videos, drawn, copies)


def describe_origin(entries: Sequence[FolderEntry], seed: int) -> str:
    """Return who chose the splits: a draw, or the folders and tables."""
    drawn = sum(entry.split is None for entry in entries)
    return f"{drawn} drawn by video with seed {seed}" if drawn else "as its folders or tables say"


def require_training(names: Sequence[str], videos: Sequence[tuple[str, Split | None]], where: Path | str) -> None:
    """Check that every class has a training video; ``videos`` are (class, split), ``where`` says who assigns splits.

    Raises:
        DataError: a class has none.
    """
    trained = {name for name, split in videos if split == "train"}
    missing = [name for name in names if name not in trained]
    if missing:
        raise DataError(f"class {missing[0]!r} has no usable video in the train split: give it one in {where}")


def check_training(source: FolderSource, entries: Sequence[FolderEntry], copies: Copies) -> None:
    """Check that every class has a training video and, where videos have several tags, that some lack each tag.

    Raises:
        DataError: a class has none, or all training videos have one tag in common.
    """
    require_training(source.class_names, [(e.class_name, e.split) for e in entries], source.root / "clips.csv")
    if not other_tags(copies):
        return
    originals = {copy.video_id: group[0].video_id for group in copies for copy in group}
    pairs = {(originals.get(e.video_id, e.video_id), e.class_name) for e in entries if e.split == "train"}
    videos, counts = {video for video, _ in pairs}, Counter(tag for _, tag in pairs)
    common = next((tag for tag in sorted(counts) if counts[tag] == len(videos)), None)
    if common is not None:
        raise DataError(
            f"class {common!r} is a tag of all {len(videos)} training videos in {source.root}, so there is nothing to "
            "tell it from: add videos without it, or leave this tag out"
        )


def count_splits(index: VideoIndex, origin: str) -> str:
    """Describe how many videos each split has, and where the splits came from."""
    counts: Counter[Split] = Counter(record.split for record in index.records)
    return f"{', '.join(f'{counts[split]} {split}' for split in SPLITS)} videos ({origin})"
