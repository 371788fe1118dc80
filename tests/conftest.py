"""Fixtures that tests of several packages share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.synthetic import write_tiny_videos

BUSY = (
    "streaming/test_feed.py",
    "test_live_view",
    "parallel/test_map.py",
    "test_resume.py::test_an_interrupted",
    "run/test_signals.py",
    "test_placement.py::test_cams_are_the_same_bytes_whole_or_in_ranges[layercam-ray]",
    "test_placement.py::test_evaluations_are_the_same_bytes[ray]",
    "test_placement.py::test_predictions_are_the_same_bytes_whole_or_in_ranges[ray]",
    "test_placement.py::test_prepared_videos_are_the_same_bytes[ray]",
    "test_launch.py::test_a_worker_that_is_killed",
    "test_launch.py::test_interrupted_workers",
    "test_launch.py::test_two_workers_of_ray",
    "test_two_nodes.py",
)
"""Tests that start Ray or measure time: where several processes share the tests, one of them runs all of these."""
TOGETHER = ("test_export.py", "test_documents.py")
"""Files whose tests share something that takes long to make: one process runs the whole file."""


def pytest_collection_modifyitems(config, items):
    """Where several processes share the tests, begin with the slow ones: none is left alone with one at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out test by test, the busy ones together (``--dist loadgroup`` of xdist 3.8 has no effect in pytest 9.2)."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if any(name in nodeid for name in BUSY):
                return "busy"
            return next((name for name in TOGETHER if name in nodeid), nodeid)

    return Scheduling(config, log)


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
