import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import safetensors.torch

from pipelines.models.localizer import build_network
from tests.helpers.tiny import read_errors, set_flags, spoil, tiny_config

SETS = set_flags()
CAM_SETS = [*SETS, "--method", "cam"]


def test_help_needs_no_torch():
    code = (
        "import sys; sys.argv = ['tcam', '--help']\n"
        "from pipelines.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        "heavy = {'torch', 'timm', 'av', 'decord', 'pandas', 'scipy'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("train", "predict", "evaluate", "compare", "demo"):
        assert command in done.stdout


def test_the_version_goes_to_stdout(tcam):
    found = tcam("--version")
    assert found.code == 0
    assert found.out.strip().count(".") == 2


@pytest.mark.slow
def test_broken_videos_are_left_out_of_training_and_listed(tcam, videos, tmp_path):
    spoilt = spoil(videos / "fish")
    found = tcam("train", "--videos", videos, "--runs", tmp_path / "runs", "--name", "x", *CAM_SETS)
    assert found.code == 4
    assert found.out == ""
    errors = read_errors(tmp_path / "runs" / "x-001" / "index" / "errors.csv")
    assert set(errors) == set(spoilt.values())
    for reason in errors.values():
        assert 0 < len(reason) <= 300
    text = " ".join(found.err.split())
    assert "8 videos" in text
    assert "4 videos left out, listed in" in text
    assert (tmp_path / "runs" / "x-001" / "report" / "table.csv").is_file()


def test_a_folder_without_videos(tcam, tmp_path):
    (tmp_path / "empty").mkdir()
    found = tcam("train", "--videos", tmp_path / "empty", "--runs", tmp_path / "runs", *SETS)
    assert found.code == 3
    assert "holds no videos: expected <class>/<clip>.mp4" in found.error
    assert found.error.endswith("found nothing")


def test_a_folder_that_is_not_there(tcam, tmp_path):
    found = tcam("train", "--videos", tmp_path / "absent", "--runs", tmp_path / "runs", *SETS)
    assert found.code == 3
    assert "cannot read the data folder" in found.error


def test_the_folder_is_looked_at_before_weights_are_fetched(tcam, tmp_path):
    found = tcam("train", "--videos", tmp_path / "absent", "--runs", tmp_path / "runs", *SETS, "--weights", "absent.pt")
    assert found.code == 3
    assert "cannot read the data folder" in found.error


def test_one_class_only(tcam, videos, tmp_path):
    shutil.rmtree(videos / "fish")
    for table in ("clips.csv", "boxes.csv"):
        (videos / table).unlink()
    found = tcam("train", "--videos", videos, "--runs", tmp_path / "runs", *SETS)
    assert found.code == 3
    assert "holds one class only ('beetle'): learning from tags needs at least two class folders" in found.error


def test_an_unknown_class_in_clips_csv(tcam, videos, tmp_path):
    table = (videos / "clips.csv").read_text().replace("fish-01.mp4,fish", "fish-01.mp4,whale")
    (videos / "clips.csv").write_text(table)
    found = tcam("train", "--videos", videos, "--runs", tmp_path / "runs", *SETS)
    assert found.code == 3
    assert "class 'whale' has no folder; the classes are 'beetle', 'fish'" in found.error
    assert "clips.csv" in found.error


def test_no_videos_named_at_all(tcam):
    found = tcam("train")
    assert found.code == 2
    assert found.error.startswith("expected --videos FOLDER (one subfolder per tag) or --resume RUN")


def test_weights_that_do_not_fit_the_backbone(tcam, tiny_videos, tmp_path):
    weights = build_network(tiny_config().model, 2, decoder=False, seed=0).backbone.model.state_dict()
    del weights["layer2.0.conv1.weight"]
    weights["conv1.0.weight" if "conv1.0.weight" in weights else "conv1.weight"] = weights["layer1.0.conv1.weight"][:1]
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *SETS, "--weights", path)
    assert found.code == 5
    assert "do not fit model 'test_resnet'" in found.error
    assert "1 of " in found.error
    assert "layers are missing: layer2.0.conv1.weight" in found.error
    assert "layers have another shape: conv1" in found.error


@pytest.mark.parametrize("name", ["hello.pt", "hello.safetensors"])
def test_weights_that_are_no_weights(tcam, tiny_videos, tmp_path, name):
    (tmp_path / name).write_text("hello")
    path = tmp_path / name
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *SETS, "--weights", path)
    assert found.code == 5
    assert "cannot read weights from" in found.error
    assert "expected a state_dict in a .safetensors, .pt or .pth file" in found.error


def test_weights_that_are_not_there(tcam, tiny_videos, tmp_path):
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *SETS, "--weights", "absent.pt")
    assert found.code == 5
    assert "no weights at 'absent.pt': expected a .safetensors, .pt or .pth file, 'imagenet' or 'random'" in found.error


def test_imagenet_weights_without_a_network(tcam, tiny_videos, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read once, when the library is imported:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *SETS, "--weights", "imagenet")
    assert found.code == 5
    assert "cannot fetch ImageNet weights of 'test_resnet' (no network" in found.error
    assert "pass --weights FILE" in found.error


def test_an_unknown_setting_lists_the_known_ones(tcam, tiny_videos, tmp_path):
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--set", "classifier.epoch=3")
    assert found.code == 2
    assert "unknown setting 'classifier.epoch': did you mean 'epochs'? known here: epochs, batch," in found.error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read the config"), ("a: [1\nb", "is not YAML"), ("- 1", "must hold settings"), ("x: 1", "unknown")],
)
def test_a_config_that_cannot_be_used(tcam, tiny_videos, tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--config", tmp_path / "config.yaml")
    assert found.code == 2
    assert message in found.error


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_here(tcam, tiny_run, tmp_path, device):
    found = tcam("train", "--videos", tiny_run.videos, "--runs", tmp_path / "runs", *SETS, "--device", device)
    assert found.code == 2
    assert f"no device '{device}' here: --device takes auto, cpu" in found.error
    found = tcam("predict", tiny_run.folder, "--source", tiny_run.videos, "--device", device)
    assert found.code == 2
    assert found.out == ""


def test_a_name_that_is_no_folder_name(tcam, tiny_videos, tmp_path):
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--name", "../x")
    assert found.code == 2
    assert "--name wants letters" in found.error


@pytest.mark.slow
def test_flags_win_over_settings_and_are_kept_with_the_run(tcam, tiny_videos, tmp_path):
    flags = ["--seed", "7", "--method", "cam", "--workers", "0", "--set", "seed=1"]
    folder = shutil.copytree(tiny_videos, tmp_path / "my videos")
    found = tcam("train", "--videos", folder, "--runs", tmp_path / "runs", *SETS, *flags)
    assert found.code == 0, found.err
    config = (tmp_path / "runs" / "my-videos-cam-001" / "config.yaml").read_text()
    assert "seed: 7" in config
    assert "method: cam" in config


def test_resuming_needs_a_run_and_no_other_flags(tcam, tiny_run, tmp_path):
    found = tcam("train", "--resume", tmp_path / "absent")
    assert found.code == 3
    assert "expected a run folder at" in found.error
    found = tcam("train", "--resume", tiny_run.folder, "--seed", "3")
    assert found.code == 2
    assert "--resume goes on with the run's own settings" in found.error
    shutil.copytree(tiny_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("env.json"))
    found = tcam("train", "--resume", tmp_path / "run")
    assert found.code == 3
    assert "--videos" in found.error


def test_an_interrupt_says_how_to_go_on(tcam, tiny_videos, tmp_path):
    pipe = tmp_path / "config.yaml"
    os.mkfifo(pipe)

    def interrupt() -> None:
        with pipe.open("w"):  # opens once the command reads its config, which then waits for us
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            stop.wait(10)

    stop = threading.Event()
    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with it ignored
    try:
        thread.start()
        found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--config", pipe)
    finally:
        signal.signal(signal.SIGINT, before)
        stop.set()
        thread.join()
    assert found.code == 130
    assert found.err.splitlines()[-1] == "tcam: interrupted by SIGINT"
    assert "Traceback" not in found.err


def test_a_start_that_fails_leaves_no_run_folder(tcam, tiny_videos, tmp_path):
    runs = tmp_path / "runs"
    tcam("train", "--videos", tiny_videos, "--weights", tmp_path / "absent.pt", "--runs", runs)
    (tmp_path / "empty").mkdir()
    found = tcam("train", "--videos", tmp_path / "empty", "--weights", "random", "--runs", runs)
    assert found.code == 3
    assert not runs.exists() or list(runs.iterdir()) == []
