"""Fixtures that tests of several packages share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.synthetic import write_tiny_videos


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of the real clips (tests marked ``real``), or skip where it is absent."""
    shared = Path(os.environ.get("TCAM_SHARED", Path(__file__).parents[2] / "shared"))
    if not (shared / "data" / "clips").is_dir():
        pytest.skip(
            f"real clips not found: expected {shared}/data/clips; set TCAM_SHARED to the folder that holds data/"
        )
    return shared / "data"


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of eight small synthetic tagged videos with true boxes; read only."""
    return write_tiny_videos(tmp_path_factory.mktemp("tiny") / "videos")
