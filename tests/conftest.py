"""Fixtures that tests of several packages share."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.compiled import compile_loops
from tests.helpers.python_processes import fork_children_from_server, share_server
from tests.helpers.synthetic import write_tiny_videos

settings.register_profile("tcam", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tcam")  # no test depends on the speed of the machine

GROUPS = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_collection_modifyitems(config, items):
    """Where several processes share the tests, begin with the slow ones: none is left alone with one at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
        groups = {item.nodeid: group for item in items if (group := group_of(item)) is not None}
        replace_file(Path(config.workerinput["groups"]), json.dumps(groups))


def group_of(item: pytest.Item) -> str | None:
    """Return the name that tests of one process share, by the marks ``ray`` and ``together``; None: any process."""
    if item.get_closest_marker("ray") is not None:
        return "ray"
    return None if item.get_closest_marker("together") is None else item.path.as_posix()


def replace_file(path: Path, text: str) -> None:
    """Write a file that other processes may read or write at the same time."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as stream:
        stream.write(text)
    Path(stream.name).replace(path)


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session):
    """Start and compile once what each xdist worker would for itself; the workers collect the tests meanwhile."""
    several, forks = session.config.getoption("numprocesses", None), sys.platform.startswith("linux")
    if forks and hasattr(session.config, "workerinput"):
        fork_children_from_server()
    if forks and several:
        share_server()
    yield
    if several:
        compile_loops()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Pass each xdist worker the file for the groups of its tests, because the scheduler sees no marks."""
    stash = node.config.stash
    if GROUPS not in stash:
        stash[GROUPS] = tempfile.TemporaryDirectory(prefix="tcam-tests-")
    node.workerinput["groups"] = str(Path(stash[GROUPS].name) / "groups.json")


def pytest_unconfigure(config):
    if GROUPS in config.stash:
        config.stash[GROUPS].cleanup()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out test by test, groups together (``--dist loadgroup`` of xdist 3.8 has no effect in pytest 9.2)."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def schedule(self) -> None:
            self.groups = json.loads((Path(config.stash[GROUPS].name) / "groups.json").read_text())
            super().schedule()

        def _split_scope(self, nodeid: str) -> str:
            return self.groups.get(nodeid, nodeid)

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
