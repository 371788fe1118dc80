"""What ``tcam data`` does: download YouTube-Objects, import split lists, and describe a folder of videos."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.config.schema import load_config
from pipelines.data.download import download, unpack
from pipelines.data.prepare import Prepared
from pipelines.data.sources import read_source, resolve_videos
from pipelines.data.youtube_objects import SPLITS_FOLDER, VERSIONS
from pipelines.run.console import console
from pipelines.run.files import write_json
from pipelines.run.places import data_folder
from tcam.errors import ConfigError, DataError
from tcam.video.youtube_objects.layout import CLASSES, find_youtube_objects
from tcam.video.youtube_objects.splits import read_split_lists


@dataclass(frozen=True, slots=True)
class Download:
    """Where a data set comes from: ``<url><archive>`` becomes ``<folder>/<stem>``; ``shared`` are for all classes."""

    url: str
    folder: str
    class_archive: str
    shared: tuple[str, ...] = ()

    def archives(self, classes: Sequence[str]) -> list[str]:
        """Return the archives of some classes, and those that all classes need."""
        return [*self.shared, *(self.class_archive.format(name) for name in classes)]


DOWNLOADS: Final = {
    "yto_v1": Download(
        "https://data.vision.ee.ethz.ch/cvl/youtube-objects/", "YouTube-Objects-v1.0", "categories/{}.tar.gz"
    ),
    "yto_v2.2": Download(
        "http://calvin-vision.net/bigstuff/youtube-objectsv2/",
        "YouTube-Objects-v2.2-original",
        "{}.tar.gz",
        ("Ranges.tar.gz", "GroundTruth.tar.gz"),
    ),
}


def get_dataset(name: str, *, source: Path | None, classes: Sequence[str], url: str | None, quiet: bool) -> None:
    """Put a data set below ``TCAM_DATA``: downloaded, unpacked from archives, or linked to an unpacked tree.

    Raises:
        ConfigError: an unknown data set or class.
        NetworkError: it cannot be downloaded.
        DataError: an archive is missing or damaged.
    """
    console.quiet = quiet
    if name not in DOWNLOADS:
        raise ConfigError(f"no data set '{name}': expected one of {', '.join(DOWNLOADS)}")
    unknown = [item for item in classes if item not in CLASSES]
    if unknown:
        raise ConfigError(f"--classes: no class '{unknown[0]}': the classes are {', '.join(CLASSES)}")
    if url is not None and not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url wants http:// or https://, got '{url}'")
    what, home = DOWNLOADS[name], data_folder() / name
    found = None if source is None else find_youtube_objects(source)
    if source is not None and found is not None:
        if found[1] != VERSIONS[name]:
            raise DataError(f"--from {source}: it holds YouTube-Objects {found[1]}, {name} is {VERSIONS[name]}")
        _link(found[0], home / what.folder)
    else:
        _sweep(home / what.folder)
        for archive in what.archives(classes or CLASSES):
            _bring(archive, what, home, source=source, url=url or what.url)
    console.print(f"{name} is in {home}; next: tcam data check {name}")


def _link(root: Path, target: Path) -> None:
    """Link an unpacked tree under the name that its archives have, without copying it."""
    home, links = target.parent, {target: root}
    if target.name.endswith("-original") and not (root / "Ranges").is_dir():  # sorted into videos and shots
        links = {target.with_name(target.name.removesuffix("-original")): root}
        if (beside := root.with_name(f"{root.name}-original")).is_dir():
            links[target] = beside
    try:
        home.mkdir(parents=True, exist_ok=True)
        for old in [path for path in home.iterdir() if path.is_symlink()]:
            old.unlink()
        for link, place in links.items():
            if link.exists() and link.resolve() != place.resolve():
                raise DataError(f"{link} holds a data set already: remove it, or set TCAM_DATA to another folder")
            if not link.exists():
                link.symlink_to(place.resolve(), target_is_directory=True)
    except OSError as error:
        raise DataError(f"cannot link {root} in {home} ({error.strerror}): name the folder with --videos") from None


def _sweep(folder: Path) -> None:
    """Remove partly unpacked folders of killed calls."""
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _bring(name: str, what: Download, home: Path, *, source: Path | None, url: str) -> None:
    """Download (or find) one archive, record its hash and unpack it, unless that was done before."""
    manifest = home / "manifest.json"
    known = _read_manifest(manifest)
    stem = Path(name).name.removesuffix(".tar.gz")
    target = home / what.folder / stem
    if target.is_dir():
        console.print(f"{stem}: there already, kept", style="dim")
        return
    if source is None:
        archive = home / "archives" / Path(name).name
        if not archive.is_file():
            _fetch_with_bar(url.rstrip("/") + "/" + name, archive)
    else:
        archive = _find_archive(source, name)
    facts = {"bytes": str(archive.stat().st_size), "sha256": _sha256(archive)}
    before = known.get(name, facts)
    if before["sha256"] != facts["sha256"]:
        raise DataError(
            f"{archive} is not the file that {manifest} notes (sha256 {facts['sha256'][:12]}..., expected "
            f"{before['sha256'][:12]}...): fetch it again, or remove the line if the new one is meant"
        )
    unpack(archive, target)
    write_json(manifest, {**known, name: facts})
    if source is None:
        archive.unlink()


def _read_manifest(path: Path) -> dict[str, dict[str, str]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it") from None


def _find_archive(source: Path, name: str) -> Path:
    places = [source / name, source / Path(name).name]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"--from {source}: expected an unpacked tree or the archive {Path(name).name}, found neither; "
        "--classes takes the classes you have"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_with_bar(url: str, target: Path) -> None:
    columns = (TextColumn("{task.description:<22}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console.quiet or not console.is_terminal) as bar:
        task = bar.add_task(target.name, total=None)
        download(url, target, progress=lambda done, total: bar.update(task, completed=done, total=total))


def import_splits(folder: Path, *, data: Path | None, quiet: bool) -> None:
    """Check split lists and store them beside the data set, where later runs find them.

    Args:
        folder: holds train, val and test, or folders such as ``YouTube-Objects-v1.0`` that hold these.
        data: a folder of the data set; None is the data set of that version below ``TCAM_DATA``.
        quiet: print nothing.

    Raises:
        DataError: there are no lists, or they do not follow the format.
    """
    console.quiet = quiet
    places = [folder, *sorted(child for child in folder.glob("YouTube-Objects-v*"))]
    found = [place for place in places if (place / "train" / "image_ids.txt").is_file()]
    if not found:
        raise DataError(f"{folder}: expected train/image_ids.txt and the like, or YouTube-Objects-v* with those inside")
    for place in found:
        lists = read_split_lists(place)
        name = next(name for name, version in VERSIONS.items() if version == lists.version)
        target = (data or data_folder() / name) / SPLITS_FOLDER
        other = next((path for path in _list_files(place) if _differs(path, target / path.relative_to(place))), None)
        if other is not None:
            raise DataError(
                f"{target} holds other lists ({other.relative_to(place)} differs), not to be replaced: remove them, "
                "or name another folder with --data"
            )
        try:
            shutil.copytree(place, target, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise DataError(f"cannot store the lists in {target} ({error}): set TCAM_DATA to another folder") from None
        videos = Counter(lists.splits.values())
        console.print(
            f"{name}: {videos['train']} train, {videos['val']} val, {videos['test']} test videos, {len(lists.shots)} "
            f"training shots, {len(lists.frames)} annotated frames -> {target}"
        )


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _differs(path: Path, stored: Path) -> bool:
    return stored.exists() and stored.read_bytes() != path.read_bytes()


def check_dataset(source: Path, overrides: Sequence[str] = (), *, as_json: bool, quiet: bool) -> int:
    """Print what a source holds, class by class, and what cannot be used; return the number of broken videos."""
    console.quiet = quiet
    folder = resolve_videos(source)
    prepared = read_source(folder, load_config(None, overrides), cache_dir=None, for_training=False)
    rows = summarize(prepared)
    _print_rows(rows, f"{source}: {prepared.split_note}")
    for title, found in (("warning", prepared.warnings), ("broken", prepared.failures)):
        for item in found:
            console.print(f"{title} {item.video_id}: {item.reason}", markup=False)
    for group in prepared.passed:
        console.print(str(group), markup=False)
    if as_json:
        content = {
            "source": str(folder),
            "splits": prepared.split_note,
            "classes": rows,
            "warnings": [[item.video_id, item.reason] for item in prepared.warnings],
            "files": dict(prepared.files),
            "passed over": [asdict(group) for group in prepared.passed],
            "broken": [[item.video_id, item.reason] for item in prepared.failures],
        }
        sys.stdout.write(json.dumps(content) + "\n")
    return len(prepared.failures)


def summarize(prepared: Prepared) -> list[dict[str, int | str]]:
    """Count per class, then in total: videos of each split, shots, frames, boxes, rotated, variable rate, broken."""
    names = list(prepared.index.class_names)
    names += sorted({item.class_name for item in prepared.failures} - set(names))
    rows: dict[str, Counter[str]] = {name: Counter() for name in names}
    for record in prepared.index.records:
        row = rows[prepared.index.class_names[record.label]]
        row.update({"videos": 1, record.split: 1, "shots": len(record.shots), "frames": record.num_frames})
        row["rotated"] += record.rotation != 0
        row["variable rate"] += record.video_id in prepared.variable_rate
    for truth in prepared.truth:
        rows[prepared.index.class_names[truth.label]].update(
            {"annotated": 1, "boxes": len(truth.boxes), "masks": bool(truth.mask)}
        )
    for failure in prepared.failures:
        rows[failure.class_name]["broken"] += 1
    total = sum(rows.values(), Counter[str]())
    return [{"class": name, **{key: row[key] for key in COLUMNS}} for name, row in {**rows, "all": total}.items()]


COLUMNS: Final = (
    *("videos", "train", "val", "test", "shots", "frames", "annotated", "boxes", "masks"),
    *("rotated", "variable rate", "broken"),
)


def _print_rows(rows: Sequence[dict[str, int | str]], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "class" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
