"""Store and read the map thresholds and presence levels that a run has chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.run.files import write_json
from tcam.errors import DataError


def save_thresholds(
    path: Path, thresholds: Mapping[str, float], *, chosen_on: str, presence: Mapping[str, float | None]
) -> None:
    """Store the map threshold and presence level of each method of a run, and where the thresholds come from."""
    write_json(path, {"thresholds": dict(thresholds), "chosen_on": chosen_on, "presence": dict(presence)})


def read_thresholds(path: Path) -> tuple[dict[str, float], str]:
    """Read what ``save_thresholds`` stored.

    Raises:
        DataError: the run has no thresholds yet.
    """
    with _reading_thresholds(path):
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in stored["thresholds"].items()}, str(stored["chosen_on"])


def read_presence(path: Path) -> dict[str, float]:
    """Read the presence levels that ``save_thresholds`` stored.

    Raises:
        DataError: the run has no thresholds yet.
    """
    with _reading_thresholds(path):
        stored = json.loads(path.read_text(encoding="utf-8")).get("presence", {})
        return {str(name): float(value) for name, value in stored.items() if value is not None}


@contextmanager
def _reading_thresholds(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected the run's map thresholds in {path}, found none ({error}); resume the run") from None
