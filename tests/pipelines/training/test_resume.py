"""A training that ends in the middle, in any way, goes on as if it had not."""

import os
import resource
import signal
import subprocess
import time

import pytest
import torch

from pipelines.models.localizer import build_network
from pipelines.parallel.placement import Placement
from pipelines.run.log import RunLog
from pipelines.run.signals import Interrupted, raising_signals
from pipelines.training.cam_cache import CamCache, write_cams
from pipelines.training.loop import TrainingContext
from pipelines.training.stages import train_classifier, train_localizer
from pipelines.training.validation import Validator
from tcam.errors import DataError
from tests.helpers.python_processes import tcam_process
from tests.helpers.tiny import CPU, SIDE, files_of, set_flags, tiny_config, tiny_localizer

STEPS = 4
"""Of an epoch: four training videos, drawn from twice, two to a batch."""


class PowerCut(BaseException):
    """Ends a training in this process as a kill would: nobody handles it."""


@pytest.fixture(scope="module")
def cam_folder(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume-cams")
    write_cams(
        tiny_data.index, tiny_localizer(), folder, settings=tiny_config().cam, size=(SIDE, SIDE), placement=Placement()
    )
    return folder


@pytest.fixture
def train(tiny_data, cam_folder, tmp_path):
    """Give a function that trains two epochs of a stage into a folder, or goes on there; gives the files' bytes."""

    def run(stage: str, name: str, *overrides: str) -> dict[str, bytes]:
        training = (f"{stage}.epochs=2", f"{stage}.frames_per_shot=2", "save_every_s=0")
        config = tiny_config("model.backbone_options={drop_path_rate: 0.5}", *training, *overrides)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        network = build_network(config.model, 2, decoder=stage == "localizer", seed=config.seed)
        validator = Validator(tiny_data.index, tiny_data.truth, settings=config.evaluation, size=(SIDE, SIDE))
        with RunLog(folder) as log:
            context = TrainingContext(config, tiny_data.index, validator, log, CPU, folder, "f")
            if stage == "classifier":
                train_classifier(network, context)
            else:
                train_localizer(network, CamCache.open(cam_folder, tiny_data.index, config.localizer.temporal), context)
        return {name: data for name, data in files_of(folder).items() if not name.startswith("events.")}

    return run


def position_of(folder) -> dict[str, object]:
    return torch.load(folder / "resume.pt", weights_only=True)["position"]


@pytest.fixture
def in_step(monkeypatch):
    """Give a function that has something done in the n-th step from then on, before the weights change."""
    real = torch.optim.SGD.step

    def plan(number: int, happen) -> None:
        taken = iter(range(1, number + 1))

        def step(self, *arguments, **keywords):
            if next(taken, None) == number:
                happen()
            return real(self, *arguments, **keywords)

        monkeypatch.setattr(torch.optim.SGD, "step", step)

    return plan


def power_cut(*_: object) -> None:
    raise PowerCut


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["classifier", "localizer"])
def test_cut_off_in_any_step_a_training_ends_the_same_byte_for_byte(stage, train, in_step, tmp_path):
    whole = train(stage, "whole")
    assert {"metrics.jsonl", "last.safetensors", "best_localization.safetensors"} <= whole.keys()
    for lived in (1, 1, 2, 1, 2):  # steps 1, 1, 2 | 3, 4: the first, a middle one and the last of an epoch
        in_step(lived, power_cut)
        with pytest.raises(PowerCut):
            train(stage, "parts")
    assert position_of(tmp_path / "parts")["step"] == 2
    in_step(2, power_cut)  # the last step of epoch 1
    with pytest.raises(PowerCut):
        train(stage, "parts")
    assert position_of(tmp_path / "parts")["step"] == STEPS - 1
    in_step(2, power_cut)  # the first of epoch 2
    with pytest.raises(PowerCut):
        train(stage, "parts")
    assert (position_of(tmp_path / "parts")["epoch"], position_of(tmp_path / "parts")["step"]) == (1, 0)
    in_step(0, power_cut)
    assert train(stage, "parts") == whole


@pytest.mark.slow
def test_cut_off_at_any_write_a_training_ends_the_same(train, monkeypatch):
    whole = train("localizer", "whole")
    real, cuts = os.fsync, 0
    for allowed in range(3, 40):
        left = iter(range(allowed))

        def fsync(descriptor: int, left=left) -> None:
            if next(left, None) is None:
                power_cut()
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            parts = train("localizer", "parts")
            break
        except PowerCut:
            cuts += 1
    assert cuts >= 4
    assert parts == whole


@pytest.mark.slow
def test_two_trainings_with_one_seed_leave_the_same_bytes_and_another_seed_others(train):
    one, two, other = train("classifier", "one"), train("classifier", "two"), train("classifier", "other", "seed=1")
    assert one == two
    assert [name for name in one if one[name] == other[name]] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # more than some machines have
@pytest.mark.parametrize("stage", ["classifier", "localizer"])
def test_the_number_of_workers_changes_nothing_not_even_on_resuming(stage, train, in_step):
    whole = train(stage, "whole")
    assert train(stage, "workers", f"{stage}.workers=4") == whole
    in_step(3, power_cut)
    with pytest.raises(PowerCut):
        train(stage, "parts")
    assert train(stage, "parts", f"{stage}.workers=2") == whole


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, STEPS, STEPS + 2])
def test_a_signal_lets_the_step_end_and_saves_it(step, train, in_step, tmp_path):
    whole = train("classifier", "whole")
    in_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with raising_signals(), pytest.raises(Interrupted):
        train("classifier", "parts", "save_every_s=1000")
    position = position_of(tmp_path / "parts")
    assert position["epoch"] * STEPS + position["step"] == step
    in_step(0, power_cut)
    assert train("classifier", "parts") == whole


def test_states_are_saved_seldom_where_saving_would_cost_much(train, in_step, tmp_path):
    in_step(STEPS, power_cut)
    with pytest.raises(PowerCut):
        train("classifier", "run", "save_every_s=1e-6")  # 2 % of so short a training is less than one state takes
    assert not (tmp_path / "run" / "resume.pt").exists() or position_of(tmp_path / "run")["step"] < STEPS - 1


@pytest.mark.slow
def test_a_full_disk_ends_the_training_and_spares_the_last_state(train, in_step, tmp_path):
    whole = train("classifier", "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = len(whole["last.safetensors"]) // 2
    in_step(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1])))
    try:
        with pytest.raises(DataError, match=r"cannot write .*resume\.pt: File too large; free space") as caught:
            train("classifier", "parts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 3
    assert position_of(tmp_path / "parts")["step"] == 2
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"metrics.jsonl", "resume.pt"}
    in_step(0, power_cut)
    assert train("classifier", "parts") == whole


def small_disk(folder, size: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("only root may mount a small disk")


@pytest.mark.slow
def test_a_run_on_a_disk_that_fills_up_keeps_what_it_has_and_goes_on_with_more_room(tcam, tiny_run, tmp_path):
    disk = tmp_path / "disk"
    state = (tiny_run.folder / "classifier" / "resume.pt").stat().st_size
    small_disk(disk, f"{int(1.5 * state)}")
    try:
        start = ("train", "--videos", tiny_run.videos, "--runs", disk / "runs", "--name", "x", *set_flags())
        found = tcam(*start, "--set", "save_every_s=0")
        assert found.code == 3
        assert "No space left on device; free space" in found.error
        run = disk / "runs" / "x-001"
        assert position_of(run / "classifier")["step"] >= 1
        assert not [name for name in files_of(run) if name.endswith(".tmp")]
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        assert tcam("train", "--resume", run).code == 0
        finished = files_of(run)
        for name in ("metrics.jsonl", "localizer/last.safetensors", "evaluation/results.json"):
            assert finished[name] == (tiny_run.folder / name).read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        found = tcam("train", "--resume", run)
        assert found.code == 3
        assert "Read-only file system" in found.error
        assert files_of(run) == finished
    finally:
        subprocess.run(["umount", disk], check=True)


def living_processes(group: int) -> list[str]:
    """Processes of a group that live longer than some seconds; one that only nobody has collected yet is dead."""
    for _ in range(50):
        states = subprocess.run(["ps", "-o", "stat=,pid=,args=", "-g", str(group)], capture_output=True, text=True)
        living = [line for line in states.stdout.splitlines() if not line.startswith("Z")]
        if not living:
            break
        time.sleep(0.1)
    return living


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_soon_with_its_children_and_says_how_to_go_on(
    number, code, tiny_videos, tmp_path
):
    run = tmp_path / "runs" / "x-001"
    many = (*set_flags(), "--set", "classifier.epochs=100000", "--set", "classifier.workers=1")
    arguments = ["train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--name", "x", *many]
    environment = {**os.environ, "TCAM_HOME": str(tmp_path / "home")}
    with tcam_process(*arguments, env=environment, stdout=None, start_new_session=True) as process:
        log = run / "metrics.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.1)
        os.killpg(process.pid, number)  # as Ctrl-C and a scheduler do: everyone gets it
        began = time.monotonic()
        assert process.wait(timeout=60) == code
        took = time.monotonic() - began
        lines = process.stderr.read().splitlines()
    assert took < 10
    assert lines[-1] == f"tcam: interrupted by {number.name}; 'tcam train --resume {run}' goes on from the last step"
    assert not [line for line in lines if "Traceback" in line], "\n".join(lines)
    assert not living_processes(process.pid)
    assert position_of(run / "classifier")["epoch"] >= 1
    assert (run / ".lock").read_text() == ""
