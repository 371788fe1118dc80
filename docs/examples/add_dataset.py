"""Add a data set with a layout of its own: flat videos beside a ``tags.txt`` with lines such as ``rex.mp4 dog``.

    python docs/examples/add_dataset.py train --videos clips/

A data set says which folders it knows, and reads them into videos and boxes. Every ``--videos`` then takes them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.cli.app import main
from pipelines.data.prepare import Prepared, ReadRequest, prepare
from pipelines.data.sources import DATASETS, Dataset
from tcam.video.data_folder.scan import FolderEntry, FolderSource


def read_tags(folder: Path, request: ReadRequest) -> Prepared:
    """Read the table of tags; tcam probes the videos and draws the splits."""
    pairs = [line.split() for line in (folder / "tags.txt").read_text(encoding="utf-8").splitlines()]
    entries = tuple(FolderEntry(name, folder / name, tag, None) for name, tag in pairs)
    source = FolderSource(folder, tuple(sorted({tag for _, tag in pairs})), entries, boxes={}, masks={})
    prepared = prepare(
        folder,
        source=source,
        cache_dir=request.cache_dir,
        placement=request.placement,
        seed=request.config.seed,
        for_training=request.for_training,
        progress=request.progress,
    )
    return replace(prepared, split_note=f"{prepared.split_note}, tags from tags.txt")


DATASETS["tags-file"] = Dataset(detect=lambda folder: (folder / "tags.txt").is_file(), read=read_tags)

if __name__ == "__main__":
    main()
