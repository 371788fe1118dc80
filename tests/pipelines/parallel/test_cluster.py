"""What the command line says when there are no workers to be had."""

import socket
import subprocess
import sys

import pytest


@pytest.fixture
def predict(tcam, tiny_run):
    def call(*options):
        return tcam("predict", tiny_run.folder, "--source", tiny_run.videos, "--device", "cpu", *options)

    return call


def test_ray_that_is_not_installed(predict, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    found = predict("--ray")
    assert found.code == 5
    assert "--ray needs the package ray" in found.error
    assert "pip install 'tcam[ray]', or leave --ray out: --workers N" in found.error


def test_a_cluster_that_does_not_answer(predict):
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    found = predict("--ray-address", address)
    assert found.code == 6
    assert f"no Ray cluster answers at {address} (Connection refused); start one with 'ray start --head'" in found.error


@pytest.mark.parametrize("flags", [("--actors", "2"), ("--gpus-per-actor", "0.5")])
def test_flags_of_ray_without_ray(predict, flags):
    found = predict(*flags)
    assert found.code == 2
    assert "--actors and --gpus-per-actor are for Ray: add --ray" in found.error


@pytest.mark.slow
def test_a_worker_without_enough_memory(tcam, videos, tmp_path):
    found = tcam("prepare", videos, "--set", "data.memory_limit_mb=20", "--workers", "1", "-o", tmp_path / "out")
    assert found.code == 3
    assert "it needed more than 20 MB of memory and was stopped" in found.error


@pytest.mark.slow
def test_help_names_the_flags_and_loads_neither_torch_nor_ray():
    code = (
        "import sys; from pipelines.cli import app as cli; sys.argv = ['tcam', sys.argv[1], '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    for command in ("predict", "evaluate", "cams", "prepare"):
        run = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=True)
        assert run.stdout.endswith("[]\n")
        assert "--workers" in run.stdout
        assert "--ray-address" in run.stdout
        assert ("--gpus-per-actor" in run.stdout) == (command != "prepare")
