"""Add a format of box tables: tab-separated values.

    python docs/examples/add_sink.py predict runs/pets-001 --source holiday.mp4 -o boxes.tsv

A sink says how a file is written row by row, and how it is read back. Any ``tcam`` command then takes its ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipelines.cli.app import main
from pipelines.inference.rows import COLUMNS, Row
from pipelines.inference.sinks import SINKS, Sink


class TsvWriter:
    """Rows with a tab between their values."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._write_line(COLUMNS)

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        for row in rows:
            self._write_line(["" if value is None else str(value) for value in row])

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _write_line(self, cells: Sequence[str]) -> None:
        self._file.write("\t".join(cells) + "\n")


SINKS[".tsv"] = Sink(open=TsvWriter, read=lambda path: pd.read_csv(path, sep="\t"))

if __name__ == "__main__":
    main()
