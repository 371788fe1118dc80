"""The script that makes the environment, with an installer in uv's place that installs nothing."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
UV = f"""#!/bin/sh
for last; do :; done
case "$1" in
venv) mkdir -p "$last/bin" && ln -s {sys.executable} "$last/bin/python" ;;
pip)
    printf ' Downloading torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl (900.0MiB)\\n' >&2
    sleep 2.5
    case "$last" in *"$BROKEN") echo 'error: no route to the index' >&2; exit 2 ;; esac ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "a clone"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(REPO / "pyproject.toml", folder)
    for name in ("bootstrap.sh", "constraints.txt"):
        shutil.copy(REPO / "tools" / name, folder / "tools")
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV)
    uv.chmod(0o755)
    return folder


def bootstrap(
    clone: Path, *, broken: str = "nothing", stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    script = 'set -euo pipefail; source tools/bootstrap.sh; printf %s "$VENV_BIN"'
    environment = {
        **os.environ,
        "PATH": f"{clone.parent / 'bin'}:{os.environ['PATH']}",
        "TCAM_PROGRESS_S": "1",
        "BROKEN": broken,
    }
    return subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60
    )


@pytest.mark.slow
def test_steps_and_plain_lines_where_stderr_is_no_terminal(clone):
    done = bootstrap(clone)
    assert (done.returncode, done.stdout) == (0, f"{clone}/.venv/bin")
    assert "\r" not in done.stderr
    steps = [line for line in done.stderr.splitlines() if line.startswith("bootstrap: ")]
    assert [step.split()[1] for step in steps] == ["1/3", "2/3", "3/3", "done:"]
    moving = [line for line in done.stderr.splitlines() if not line.startswith("bootstrap: ")]
    assert moving
    assert all(line.endswith(": Downloading torch-2.15.0 (900.0MiB)") for line in moving)
    assert moving[0].startswith("  0:0")
    again = bootstrap(clone)
    assert (again.returncode, again.stderr) == (0, ""), "nothing changed, nothing to say"


@pytest.mark.slow
def test_one_moving_line_on_a_terminal(clone):
    main, terminal = pty.openpty()
    done = bootstrap(clone, stderr=terminal)
    os.close(terminal)
    shown = b""
    while chunk := _read(main):
        shown += chunk
    os.close(main)
    assert done.returncode == 0
    assert shown.count(b"\r\x1b[K  0:0") >= 2
    assert b"Downloading torch-2.15.0 (900.0MiB)\n" not in shown
    assert b"Terminated" not in shown


@pytest.mark.slow
def test_what_the_installer_complains_of_is_seen(clone):
    done = bootstrap(clone, broken="[dev]")
    assert done.returncode == 1
    assert "error: no route to the index" in done.stderr
    assert "is a package index reachable?" in done.stderr.splitlines()[-1]
    assert not (clone / ".venv" / ".tcam-installed").exists()


@pytest.mark.slow
def test_without_a_compiler_only_the_crf_is_missing(clone):
    done = bootstrap(clone, broken="[crf]")
    assert done.returncode == 0
    assert "no pydensecrf" in done.stderr
    assert (clone / ".venv" / ".tcam-installed").exists()


def _read(file: int) -> bytes:
    try:
        return os.read(file, 4096)
    except OSError:  # the other end is closed
        return b""
