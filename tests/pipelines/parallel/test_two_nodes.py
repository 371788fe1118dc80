"""A Ray cluster of two nodes on this machine, one of which is killed in the middle of the work."""

import shutil
import sys
import threading
import time

import pytest

from tests.helpers.encoded import encode
from tests.helpers.tiny import files_of, spoil

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Killer(threading.Thread):
    """Kills a second node once so many files are there."""

    def __init__(self, cluster, folder, pattern, count):
        super().__init__(daemon=True)
        self.cluster, self.folder, self.pattern, self.count = cluster, folder, pattern, count
        self.node = cluster.add_node(wait=False, num_cpus=1, object_store_memory=10**8)
        cluster.wait_for_nodes(timeout=240)
        self.seen = None
        self.start()

    def run(self):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            self.seen = len(list(self.folder.rglob(self.pattern)))
            if self.seen >= self.count:
                self.cluster.remove_node(self.node, allow_graceful=False)
                return
            time.sleep(0.02)
        raise TimeoutError(f"{self.pattern} never came to {self.count} in {self.folder}")


def _finished_files(folder):
    """What a killed process had begun keeps a temporary name until the next command sweeps it."""
    return {name: content for name, content in files_of(folder).items() if not name.endswith((".tmp", ".part"))}


def test_a_node_that_is_lost_costs_nothing_but_time(ray_cluster, tcam, tiny_run, videos, tmp_path, monkeypatch):
    spoil(videos / "fish")
    for number in range(6):
        encode(videos / "beetle" / f"more-{number}.mp4", frames=40 + number, size=(64, 96))
    run = {name: shutil.copytree(tiny_run.folder, tmp_path / name / "tiny-001") for name in ("here", "there")}
    here, there = ("--workers", "0"), ("--ray-address", ray_cluster.address)
    took = {}

    def compare(name, call, *, watch, pattern, kill_at, total):
        for where, flags in (("here", here), ("there", there)):
            monkeypatch.setenv("TCAM_HOME", str(tmp_path / where / "home"))
            killer = Killer(ray_cluster, tmp_path / where / watch, pattern, kill_at) if where == "there" else None
            began = time.monotonic()
            found = call(where, flags)
            took[name, where] = time.monotonic() - began
            assert found.code in (0, 4), found.err
            if killer is not None:
                killer.join(30)
                assert not killer.is_alive()
                assert killer.seen < total
                assert ray_cluster.head_node.remaining_processes_alive()  # a command leaves the cluster of others

    compare(
        "prepare",
        lambda where, flags: tcam("prepare", videos, "-o", tmp_path / where / "index", "-q", *flags),
        watch="home/cache", pattern="*.mp4", kill_at=2, total=14,
    )  # fmt: skip
    assert _finished_files(tmp_path / "here" / "home" / "cache") == _finished_files(
        tmp_path / "there" / "home" / "cache"
    )
    for name in ("truth.csv", "errors.csv"):
        assert (tmp_path / "here" / "index" / name).read_bytes() == (tmp_path / "there" / "index" / name).read_bytes()

    compare(
        "predict",
        lambda where, flags: tcam(
            "predict", run[where], "--source", videos, "--device", "cpu", "-q", *flags,
            "-o", f"{tmp_path / where / 'boxes'}/",
        ),
        watch="boxes", pattern="*.csv", kill_at=2, total=14,
    )  # fmt: skip
    assert _finished_files(tmp_path / "here" / "boxes") == _finished_files(tmp_path / "there" / "boxes")
    sys.stderr.write(f"seconds in this process, and on two nodes of which one is killed: {took}\n")
