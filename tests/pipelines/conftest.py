"""Fixtures of the pipeline tests: prepared data, one finished run, the command line in this process."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import app as cli
from pipelines.commands.train import start_or_resume
from pipelines.data.prepare import Prepared, prepare
from pipelines.parallel.cluster import set_ray_up
from pipelines.parallel.placement import Placement
from pipelines.run.console import console
from tests.helpers.inputs import hash_inputs, sha256
from tests.helpers.tiny import SETTINGS, Outcome, TinyRun

CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@pytest.fixture(scope="session")
def tiny_data(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Give the index and the boxes of the tiny videos."""
    return prepare(tiny_videos, cache_dir=tmp_path_factory.mktemp("tiny-cache"), short_side=64, placement=Placement())


@pytest.fixture(scope="session")
def tiny_run(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Give a finished TCAM run on the tiny videos; read only."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCAM_HOME", str(home))
        result = start_or_resume(tiny_videos, overrides=SETTINGS, name="tiny", runs=home / "runs", quiet=True)
    assert (result.folder, result.failures) == (home / "runs" / "tiny-001", 0)
    return TinyRun(result.folder, tiny_videos, home)


@pytest.fixture
def train_beside(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that trains a run beside the tiny run; stages with equal settings are copied from there.

    Its runs are removed after the test: another test would take its stages from them.
    """
    monkeypatch.setenv("TCAM_HOME", str(tiny_run.home))
    runs = tiny_run.folder.parent

    def train(name: str, *overrides: str, failures: int = 0, quiet: bool = False) -> Path:
        result = start_or_resume(tiny_run.videos, overrides=(*SETTINGS, *overrides), name=name, runs=runs, quiet=quiet)
        assert (result.folder, result.failures) == (runs / f"{name}-001", failures)
        return result.folder

    yield train
    for folder in set(runs.iterdir()) - {tiny_run.folder}:
        shutil.rmtree(folder)


RAY_SETTINGS = {
    "gcs_server_port_wait_time_s": "240",  # a busy machine
    "health_check_timeout_ms": "60000",
    "health_check_period_ms": "500",  # a killed node refuses at once: so many times, and it is given up
    "raylet_start_wait_time_s": "240",
    "worker_niceness": "0",
}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Start a Ray cluster that all tests share: one node of two processors, no GPU, the smallest object store.

    Tests join it by its ``address``, in this process or another; what they start there ends with them.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY_SETTINGS.items():
            patch.setenv(f"RAY_{name}", value)
        set_ray_up()
        pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        spared = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        node = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 80 * 2**20}
        before = signal.getsignal(signal.SIGTERM)  # Ray takes it, to drain the node
        cluster = Cluster(initialize_head=True, head_node_args={**node, **spared})
        signal.signal(signal.SIGTERM, before)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def small_ray(ray_cluster: Any) -> Iterator[None]:
    """Join the cluster of the tests for a file of tests."""
    import ray

    ray.init(address=ray_cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a headless Chromium of the system with an empty profile, or skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield running
        running.close()


@pytest.fixture
def ray_kept(request: pytest.FixtureRequest) -> None:
    """Have ``small_ray`` where the test is one of Ray, as its parameters say."""
    if "ray" in request.node.callspec.id:
        request.getfixturevalue("small_ray")


@pytest.fixture
def tcam(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Outcome]:
    """Give a function that runs ``tcam`` with some arguments in this process, cache and data in the test's folder.

    No command may change a file that it reads.
    """
    monkeypatch.setenv("TCAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TCAM_DATA", str(tmp_path / "data"))

    def call(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tcam", *map(str, arguments)])
        inputs = hash_inputs(sys.argv[1:])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            cli.run()
        out, err = capsys.readouterr()
        changed = {file for file, known in inputs.items() if not file.is_file() or sha256(file) != known}
        assert not changed, f"the command changed what it reads: {changed}"
        return Outcome(int(leaving.value.code or 0), out, err)

    return call


@pytest.fixture(autouse=True)
def console_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin every test with a console that speaks: commands run in this process may have left it quiet."""
    monkeypatch.setattr(console, "quiet", False)


@pytest.fixture(autouse=True)
def shared_videos_stay(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the videos that tests share before and after every test that has them, however it calls a command."""
    if not {"tiny_videos", "tiny_run"} & set(request.fixturenames):
        yield
        return
    folder = request.getfixturevalue("tiny_videos")
    before = hash_inputs([str(folder)])
    yield
    assert hash_inputs([str(folder)]) == before, f"a command changed what it reads in {folder}"


@pytest.fixture
def videos(tiny_videos: Path, tmp_path: Path) -> Path:
    """A copy of the tiny videos that a test may spoil."""
    return shutil.copytree(tiny_videos, tmp_path / "videos")
