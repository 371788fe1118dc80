import re
from importlib.metadata import version

import pytest

from tests.helpers.documents import REPO
from tools.cli_docs import TARGET, render, row

PINNED = re.search(r"^typer==(\S+)", (REPO / "tools/constraints.txt").read_text(), re.MULTILINE).group(1)


@pytest.mark.skipif(version("typer") != PINNED, reason=f"another Typer than {PINNED} words defaults in its own way")
def test_the_page_is_current():
    assert TARGET.read_text() == render(), "docs/cli.md is not current: run python tools/cli_docs.py"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            ("--batch <int>", "Frames per pass.  [default: 8; x>=1]"),
            "| `--batch <int>` | `8` | Frames per pass. `x>=1` |\n",
        ),
        (("RUN <path>", "Run folder.  [required]"), "| `RUN <path>` | required | Run folder. |\n"),
        (("--drop latest|none", "Frames to [leave] out."), "| `--drop latest\\|none` |  | Frames to [leave] out. |\n"),
        (("--videos <path>", "As <tag>/<clip>."), "| `--videos <path>` |  | As &lt;tag>/&lt;clip>. |\n"),
        (("--seed <int>", "[x>=0]"), "| `--seed <int>` |  | `x>=0` |\n"),
    ],
)
def test_a_row_has_spellings_default_and_meaning(record, expected):
    assert row(record) == expected
