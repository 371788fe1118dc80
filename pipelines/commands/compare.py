"""What ``tcam compare`` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.inference.outputs import check_output_folder, mark_output_folder
from pipelines.report.compare import compare_runs
from pipelines.report.compare_page import (
    COMPARISON_FILES,
    NUM_SUMMARY_COLUMNS,
    as_values,
    difference_rows,
    score_rows,
    write_comparison_page,
)
from pipelines.run.console import console, print_text_table


def compare_finished(runs: Sequence[Path], output: Path, *, as_json: bool, quiet: bool) -> None:
    """Compare runs, print the tables and write the pages."""
    console.quiet = quiet
    comparison = compare_runs(runs)
    check_output_folder(output, COMPARISON_FILES, runs, flag="-o")
    mark_output_folder(output)
    head, rows = score_rows(comparison)
    print_text_table(
        "CorLoc, mean ± standard deviation over seeds (by class: the page)",
        head[:NUM_SUMMARY_COLUMNS],
        [row[:NUM_SUMMARY_COLUMNS] for row in rows],
    )
    print_text_table("paired differences, points", *difference_rows(comparison))
    page = write_comparison_page(output, comparison)
    console.print(f"comparison: {page}")
    if as_json:
        sys.stdout.write(json.dumps(as_values(comparison)) + "\n")
