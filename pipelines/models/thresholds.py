"""Store and read the map thresholds and presence levels that a run has chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipelines.run.files import write_json
from tcam.errors import DataError


def save_thresholds(
    path: Path,
    thresholds: Mapping[str, float],
    *,
    chosen_on: str,
    presence: Mapping[str, float | None],
    others: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    tags: Mapping[str, Any] | None = None,
) -> None:
    """Store the map threshold and presence level of each method of a run, and where the thresholds come from.

    ``others`` are thresholds chosen in other ways, by the name of the way. ``tags`` says what that choice rests on.
    """
    stored = {"thresholds": dict(thresholds), "chosen_on": chosen_on, "presence": dict(presence)}
    write_json(path, {**stored, "others": {way: dict(found) for way, found in others.items()}, "tags": tags})


def read_thresholds(path: Path) -> tuple[dict[str, float], str]:
    """Read what ``save_thresholds`` stored.

    Raises:
        DataError: the run has no thresholds yet.
    """
    with _reading_thresholds(path):
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in stored["thresholds"].items()}, str(stored["chosen_on"])


def read_other_thresholds(path: Path) -> dict[str, dict[str, float]]:
    """Read the thresholds that were chosen in other ways, by the name of the way; none in runs of earlier versions.

    Raises:
        DataError: the run has no thresholds yet.
    """
    with _reading_thresholds(path):
        stored = json.loads(path.read_text(encoding="utf-8")).get("others", {})
        return {str(way): {str(name): float(t) for name, t in found.items()} for way, found in stored.items()}


def read_presence(path: Path) -> dict[str, float]:
    """Read the presence levels that ``save_thresholds`` stored.

    Raises:
        DataError: the run has no thresholds yet.
    """
    with _reading_thresholds(path):
        stored = json.loads(path.read_text(encoding="utf-8")).get("presence", {})
        return {str(name): float(value) for name, value in stored.items() if value is not None}


def read_tag_reasons(path: Path) -> dict[str, Any] | None:
    """Read what the choice by tags rests on; None where tags were not asked, or by another version.

    Returns:
        ``videos``, their number, and ``by_localizer``: the values of ``Agreement`` by name.

    Raises:
        DataError: the run has no thresholds yet.
    """
    with _reading_thresholds(path):
        found = json.loads(path.read_text(encoding="utf-8")).get("tags")
        return dict(found) if found is not None and "by_localizer" in found else None


@contextmanager
def _reading_thresholds(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected the run's map thresholds in {path}, found none ({error}); resume the run") from None
