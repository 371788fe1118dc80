import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from pipelines.run.lock import locked
from tcam.errors import DataError

HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from pipelines.run.lock import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    print('locked', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_second_process_is_told_who_holds_the_run_until_that_one_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "locked\n"
        message = f"is locked by process {owner.pid} on {socket.gethostname()}; wait for it, stop it"
        with pytest.raises(DataError, match=message) as caught, locked(tmp_path):
            pass
        assert caught.value.exit_code == 3
        owner.kill()
        owner.wait()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_worker_that_outlives_its_killed_parent_holds_no_lock(tmp_path):
    fork = "if os.fork() == 0:\n        print(os.getpid(), flush=True)"
    hold = "import os\n" + HOLD.replace("print('locked', flush=True)", fork)
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE) as owner:
        worker = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
        os.kill(worker, 0)  # still there
        with locked(tmp_path):
            pass
        os.kill(worker, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="another kind of lock there")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_worked_on_all_the_same(tmp_path, monkeypatch, code):
    def no_flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", no_flock)
    with locked(tmp_path), locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_lock_ends_with_its_block_and_says_nothing_of_a_former_owner(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path):
            raise KeyError
        assert (tmp_path / ".lock").read_text() == ""


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path):
    with pytest.raises(DataError, match=r"cannot write to the run folder .*absent"), locked(tmp_path / "absent"):
        pass
    assert not (tmp_path / "absent").exists()
