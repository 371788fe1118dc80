"""The short form of the long test."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers.python_processes import python_process

SCRIPT = Path(__file__).parents[3] / "tools" / "stress" / "kill.py"


@pytest.mark.slow
def test_a_training_killed_five_times_ends_as_if_it_never_was():
    code = f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with python_process(code, "--kills", 5, "--seed", 1, **pipes) as process:
        out, err = process.communicate(timeout=900)
    assert process.returncode == 0, out + err
    assert out.startswith("5 kills, ")
    for promise in ("corrupt: 0", "different: 0", "leftovers: 0"):
        assert promise in out.splitlines()
