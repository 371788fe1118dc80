"""``tcam train`` with several processes: through Ray Train, under torchrun, and what goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from pipelines.commands.train import start_or_resume
from pipelines.training.distributed.process_group import check_gpus, check_group_size
from tcam.errors import ConfigError
from tests.helpers.python_processes import TCAM, python_process, tcam_process
from tests.helpers.tiny import SETTINGS, set_flags, tiny_config
from tests.pipelines.training.test_resume import living_processes, position_of

UNEVEN = ("classifier.batch=3", "classifier.frames_per_shot=2", "localizer.batch=3", "localizer.lr=1e-4")


def values_of(run) -> dict[tuple[str, int], dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(row.pop("stage"), row.pop("epoch")): row for row in rows}


def start(home, *arguments, ray_address=None) -> subprocess.Popen[str]:
    """Start ``tcam train``; without an address it starts a Ray of its own."""
    environment = {**os.environ, "TCAM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    if ray_address is not None:
        environment["RAY_ADDRESS"] = ray_address
    return tcam_process("train", *arguments, env=environment, stdout=None, start_new_session=True)


def end_well(process) -> str:
    """Wait for the command's good end, without a process left; gives what it said."""
    with process:
        _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert not living_processes(process.pid)
    return said


@pytest.fixture(scope="module")
def alone(tiny_videos, tmp_path_factory):
    """Give the arguments of a training and the run that one process, this one, makes of them."""
    home, settings = tmp_path_factory.mktemp("alone"), (*SETTINGS, *UNEVEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCAM_HOME", str(home))
        start_or_resume(tiny_videos, overrides=settings, name="x", runs=home / "runs", quiet=True)
    return ("--videos", tiny_videos, "--name", "x", *set_flags(settings)), home / "runs" / "x-001"


def assert_alike(run, other) -> None:
    one, two = values_of(run), values_of(other)
    assert one.keys() == two.keys() == {("classifier", 1), ("localizer", 1)}
    for key, values in one.items():
        assert two[key] == pytest.approx(values, rel=1e-3, abs=1e-6), key
    weights = [load_file(folder / "localizer" / "last.safetensors") for folder in (run, other)]
    worst = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert worst < 1e-3
    assert not [path for path in other.rglob("*") if path.name in ("ray", ".interrupted")]


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_of_ray_train_as_one_process_does(alone, ray_cluster, tmp_path):
    """They do the last stage; those of the tests below do the first one."""
    run, other = alone[1], tmp_path / "runs" / "x-001"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("localizer", "evaluation", "report"))
    log = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(row for row in log if '"classifier"' in row))
    arguments = ("--resume", other, "--num-workers", 2)
    said = end_well(start(tmp_path / "home", *arguments, ray_address=ray_cluster.address))
    assert ray_cluster.head_node.remaining_processes_alive()
    assert_alike(run, other)
    assert "localizer 1/1  seeds " in said
    assert (other / "report" / "report.html").is_file()


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one_does(alone, tmp_path):
    arguments, run = alone
    launcher = "from torch.distributed.run import main; main()"
    command = ("--nproc-per-node", 2, "--no-python", sys.executable, "-c", TCAM, "train", *arguments)
    environment = {**os.environ, "TCAM_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    end_well(python_process(launcher, *command, "--runs", tmp_path / "runs", **options))
    assert_alike(run, tmp_path / "runs" / "x-001")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x-001"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "own_ray"), [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, True)])
def test_interrupted_workers_leave_soon_and_their_step_is_saved(number, code, own_ray, tiny_videos, tmp_path, request):
    pytest.importorskip("ray")
    cluster = None if own_ray else request.getfixturevalue("ray_cluster")
    run = tmp_path / "runs" / "x-001"
    many = set_flags((*SETTINGS, *UNEVEN, "classifier.epochs=100000", "method=cam", "save_every_s=1000"))
    arguments = ("--videos", tiny_videos, "--name", "x", *many, "--runs", tmp_path / "runs", "--num-workers", 2)
    with start(tmp_path / "home", *arguments, ray_address=None if own_ray else cluster.address) as job:
        log = run / "metrics.jsonl"
        while job.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.1)
        began = time.monotonic()
        os.kill(job.pid, number)
        said = job.communicate(timeout=60)[1].splitlines()
        took = time.monotonic() - began
    assert job.returncode == code, said
    sys.stderr.write(f"left after {took:.1f} s\n")
    assert took < 10
    assert said[-1] == f"tcam: interrupted by {number.name}; 'tcam train --resume {run}' goes on from the last step"
    assert not living_processes(job.pid)
    assert own_ray or cluster.head_node.remaining_processes_alive()
    assert position_of(run / "classifier")["epoch"] >= 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_with_one_line_and_one_process_goes_on(tcam, tiny_videos, tmp_path):
    pytest.importorskip("ray")
    run = tmp_path / "runs" / "x-001"
    many = set_flags((*SETTINGS, "classifier.frames_per_shot=40", "method=cam", "save_every_s=0"))
    arguments = ("--videos", tiny_videos, "--name", "x", *many, "--runs", tmp_path / "runs", "--num-workers", 2)
    with start(tmp_path / "home", *arguments) as job:
        while job.poll() is None and not (run / "classifier" / "resume.pt").exists():
            time.sleep(0.01)
        listed = subprocess.run(["ps", "-o", "pid=,args=", "-g", str(job.pid)], capture_output=True, text=True).stdout
        workers = [int(line.split()[0]) for line in listed.splitlines() if "RayTrainWorker" in line]
        assert len(workers) == 2, listed
        os.kill(workers[1], signal.SIGKILL)
        said = job.communicate(timeout=120)[1].splitlines()
    assert job.returncode == 1, said
    assert said[-1].startswith("tcam: error: classifier stopped: a worker ended (")
    assert said[-1].endswith("; resume the run with --resume")
    assert not [line for line in said if "Traceback" in line]
    assert not living_processes(job.pid)
    assert position_of(run / "classifier")["step"] >= 1
    assert tcam("train", "--resume", run).code == 0
    assert list(values_of(run)) == [("classifier", 1)]


def test_fewer_than_one_worker_is_refused_before_anything_is_written(tcam, tiny_videos, tmp_path):
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *set_flags(), "--num-workers", 0)
    assert (found.code, found.error) == (2, "--num-workers must be 1 or more, got 0")
    assert not (tmp_path / "runs").exists()


def test_more_workers_than_clips_in_a_batch_are_refused(tcam, tiny_videos, tmp_path):
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *set_flags(), "--num-workers", 3)
    assert found.code == 2
    assert "all workers: expected at most 2 (classifier.batch, in clips), got 3 workers; ask for fewer" in found.error
    assert not (tmp_path / "runs").exists()


def test_sequences_count_as_one_clip():
    config = tiny_config("method=colocam", "localizer.batch=9", "localizer.sequence.frames=4", "classifier.batch=32")
    check_group_size(config, 2)
    with pytest.raises(ConfigError, match=r"at most 2 \(localizer\.batch, in clips\), got 3 workers"):
        check_group_size(config, 3)


def test_without_ray_the_way_out_is_named(tcam, tiny_videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "pipelines.training.distributed.ray", raising=False)
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *set_flags(), "--num-workers", 2)
    assert found.code == 5
    assert found.error.startswith("--num-workers 2 needs Ray Train")
    assert "pip install 'tcam[ray]'" in found.error
    assert not (tmp_path / "runs").exists()


def test_every_worker_needs_a_gpu_of_its_own():
    check_gpus(2, 2)
    with pytest.raises(ConfigError, match="every worker needs a GPU: expected 4, found 1; ask for 1 workers"):
        check_gpus(4, 1)
