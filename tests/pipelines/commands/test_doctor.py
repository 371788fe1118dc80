"""What a newcomer asks first: does it work here?"""

import json
import time
from pathlib import Path
from socket import create_server

import huggingface_hub.constants as hub
import pytest
import torch

from pipelines.commands import doctor
from pipelines.commands.doctor import Check, check_folder, check_packages
from tests.helpers.file_server import serve

REPO = Path(__file__).parents[3]
HUB_FILE = "/timm/resnet50.a1_in1k/resolve/main/config.json"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Ask no real hub: an address where nobody listens refuses at once."""
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)


def checks_of(found):
    return {check["name"]: check for check in json.loads(found.out)["checks"]}


def with_module(monkeypatch, folder: Path, name: str, content: str) -> None:
    """Let the processes that doctor starts find this module before the installed one."""
    (folder / f"{name}.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{REPO}")


@pytest.mark.slow
def test_a_machine_that_can_run_the_tests_is_ok(tcam, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('a file of the user, not PyTorch')")
    monkeypatch.chdir(tmp_path)
    found = tcam("doctor")
    assert found.code == 0, found.out + found.err
    lines = found.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line[:8] for line in lines} <= {"ok      ", "missing ", " " * 8}
    names = [line[8:19].strip() for line in lines if line[0] != " "]
    assert names[:6] == ["Python", "PyTorch", "device", "precision", "networks", "PyAV"]
    assert names[-3:] == ["cache", "data sets", "weights"]
    assert [path.name for path in tmp_path.iterdir()] == ["torch.py"], "to look is not to make folders"


@pytest.mark.slow
def test_json_for_scripts_and_a_machine_without_decord(tcam, tmp_path, monkeypatch):
    with_module(monkeypatch, tmp_path, "decord", "raise ImportError('no decord')")
    found = tcam("doctor", "--json")
    assert found.code == 0, found.out + found.err
    assert json.loads(found.out)["ok"] is True
    checks = checks_of(found)
    assert checks["PyTorch"]["detail"].startswith(f"{torch.__version__}, ")
    assert checks["precision"]["detail"][:4] in {"fp32", "bf16", "fp16"}
    assert checks["PyAV"] | {"detail": ""} == {"name": "PyAV", "status": "ok", "detail": "", "remedy": ""}
    assert (checks["decord"]["status"], checks["decord"]["remedy"]) == ("missing", "pip install decord")
    assert checks["weights"]["status"] == "missing"
    assert "--weights FILE" in checks["weights"]["remedy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "ImportError: libcudart.so.13"),
        ("import os; os.abort()", "its process was ended by SIGABRT"),
        ("import sys; sys.exit(7)", "exit code 7"),
    ],
)
def test_a_torch_that_does_not_load_is_a_line_and_exit_code_5(tcam, tmp_path, monkeypatch, content, reason):
    with_module(monkeypatch, tmp_path, "torch", content)
    found = tcam("doctor", "--json")
    assert found.code == 5
    assert json.loads(found.out)["ok"] is False
    failed = checks_of(found)["PyTorch"]
    assert failed["status"] == "FAILED"
    assert failed["detail"].startswith(reason)
    assert "PyTorch failed" in found.error
    assert checks_of(found)["PyAV"]["status"] == "ok", "the other checks go on"


def test_every_required_part_that_fails_is_named(tcam, tmp_path, monkeypatch):
    with_module(monkeypatch, tmp_path, "torch", "raise ImportError('no torch')")
    with_module(monkeypatch, tmp_path, "av", "raise ImportError('libavcodec.so.62: not found')")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TCAM_HOME", str(tmp_path / "file"))
    found = tcam("doctor", "--json")
    assert found.code == 5
    assert "PyTorch, PyAV, cache failed" in found.error
    assert "libavcodec.so.62" in checks_of(found)["PyAV"]["detail"]
    assert checks_of(found)["cache"]["remedy"] == "set TCAM_HOME to another folder"


def test_a_torch_that_hangs_does_not_hang_the_doctor(tcam, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_TIMEOUT_S", 0.5)
    with_module(monkeypatch, tmp_path, "torch", "import time; time.sleep(600)")
    began = time.monotonic()
    found = tcam("doctor", "--json")
    assert time.monotonic() - began < 300
    assert checks_of(found)["PyTorch"]["detail"] == "no answer within 0 s"


def test_a_data_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("")
    check = check_folder("data sets", tmp_path / "file" / "x", "TCAM_DATA", required=False)
    assert (check.status, check.remedy) == ("missing", "set TCAM_DATA to another folder")


def test_packages_name_the_extra_that_brings_them():
    assert check_packages("mine", ["numpy"], "for arrays").status == "ok"
    check = check_packages("mine", ["numpy", "no-such-package"], "only for that", extra="that")
    assert check == Check("mine", "missing", "no no-such-package (only for that)", "pip install 'tcam[that]'")
    check = check_packages("mine", ["no-such-package"], "always", required=True)
    assert (check.status, check.remedy) == ("FAILED", "pip install no-such-package")


def weights_line() -> Check:
    return doctor._HubAnswer().check()


def test_a_hub_that_answers(monkeypatch):
    with serve() as server:
        server.files = {HUB_FILE: b"{}"}
        monkeypatch.setattr(hub, "ENDPOINT", server.url)
        assert weights_line().status == "ok"
        server.files = {}
        check = weights_line()
    assert check.status == "missing"
    assert "answers 404" in check.detail


@pytest.mark.slow
def test_a_hub_that_does_not_answer_costs_two_seconds(monkeypatch):
    with create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        check = weights_line()
        assert time.monotonic() - began < 10
    assert check.status == "missing"
    assert "--weights FILE" in check.remedy


def test_a_hub_that_may_not_be_asked(monkeypatch):
    with serve() as server:
        monkeypatch.setattr(hub, "ENDPOINT", server.url)
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
        check = weights_line()
        assert server.requests == []
    assert "HF_HUB_OFFLINE" in check.detail
