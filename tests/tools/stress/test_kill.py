"""The short form of the long test."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "stress" / "kill.py"


@pytest.mark.slow
def test_a_training_killed_five_times_ends_as_if_it_never_was():
    command = [sys.executable, str(SCRIPT), "--kills", "5", "--seed", "1"]
    done = subprocess.run(command, cwd=SCRIPT.parents[2], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("5 kills, ")
    for promise in ("corrupt: 0", "different: 0", "leftovers: 0"):
        assert promise in done.stdout.splitlines()
