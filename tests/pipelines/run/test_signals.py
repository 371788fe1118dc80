import os
import signal
import subprocess
import sys
import time

import pytest

from pipelines.run.signals import Interrupted, finishing, raising_signals


@pytest.fixture(autouse=True)
def not_ignored():
    """A background shell starts us with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_an_exception_that_knows_its_exit_code(number, code):
    with raising_signals(), pytest.raises(Interrupted, match=f"^tcam: interrupted by {number.name}$") as caught:
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert not isinstance(caught.value, Exception)


def test_work_that_must_be_whole_ends_before_the_signal_takes_effect():
    done = []

    def work() -> None:
        with finishing():
            with finishing():
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # a launcher and a group may both pass it on
                done.append("inner")
            done.append("outer")

    with raising_signals(), pytest.raises(Interrupted):
        work()
    assert done == ["inner", "outer"]


def test_an_error_in_such_work_is_not_hidden_by_a_signal():
    def work() -> None:
        with finishing():
            os.kill(os.getpid(), signal.SIGTERM)
            raise KeyError

    with raising_signals(), pytest.raises(KeyError):
        work()


def test_a_signal_that_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with raising_signals():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.SIG_IGN


def test_without_a_signal_nothing_is_left_behind():
    before = signal.getsignal(signal.SIGTERM)
    with raising_signals(), finishing():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_that_does_not_end_is_ended_with_its_children_and_the_advice():
    code = (
        "import subprocess, sys, time\n"
        "from multiprocessing import get_context\n"
        "from pipelines.run import signals\n"
        "signals.GRACE_S = 0.5\n"
        "if __name__ == '__main__':\n"
        "    with signals.raising_signals(), signals.finishing():\n"
        "        signals.advise('do this')\n"
        "        child = get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "        child.start()\n"
        "        print(child.pid, flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=30) == 143
        assert time.monotonic() - began < 10
        assert process.stderr.read() == "tcam: interrupted by SIGTERM; do this\n"
    assert has_ended(child)


def has_ended(process: int) -> bool:
    """Whether a process ends within some seconds; one that only nobody has collected yet has ended."""
    for _ in range(50):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("module", "code"), [("ray", 3), ("nothing", -signal.SIGABRT)])
def test_a_command_that_used_ray_is_not_taken_down(module, code):
    program = (
        "import atexit, ctypes, sys; from pipelines.cli import app as cli\n"
        f"sys.modules['{module}'] = sys\n"
        "libc = ctypes.CDLL(None); libc.on_exit(ctypes.cast(libc.abort, ctypes.c_void_p), None)\n"
        "atexit.register(print, 'handled')\n"
        "cli.run = lambda: sys.exit(3)\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "handled\n"), done.stderr
