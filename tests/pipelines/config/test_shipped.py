import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from pipelines.config.schema import load_config
from pipelines.config.shipped import configs_folder, list_configs
from tests.helpers.tiny import SETTINGS, set_flags
from tests.helpers.youtube_objects_tree import read_lists, write_small_lists, write_v1, write_v2

REPO = Path(__file__).parents[3]
PUBLISHED = ["yto_v1/cam", "yto_v1/colocam", "yto_v1/tcam", "yto_v2.2/cam", "yto_v2.2/colocam", "yto_v2.2/tcam"]


def test_every_config_loads_and_says_what_it_is():
    known = list_configs()
    assert set(PUBLISHED) <= known.keys()
    for name, first_line in known.items():
        path = configs_folder() / f"{name}.yaml"
        config = load_config(path)
        method, _, baseline = path.stem.partition("-")[0].partition("_")
        assert (config.method, config.classifier.baseline) == (method, baseline or "none")
        assert first_line.endswith(".")
        assert f"--config configs/{name}.yaml" in path.read_text()


def test_the_published_settings_are_those_of_the_papers():
    for data in ("yto_v1", "yto_v2.2"):
        tcam, colocam = (load_config(configs_folder() / data / f"{name}.yaml") for name in ("tcam", "colocam"))
        seeds = tcam.localizer.seeds
        assert (tcam.classifier.lr, tcam.classifier.lr_step, tcam.classifier.epochs) == (1e-3, 15, 100)
        assert (tcam.localizer.lr, tcam.localizer.lr_step, tcam.localizer.epochs) == (1e-2, 15, 100)
        assert (seeds.foreground, seeds.background, seeds.foreground_fraction) == (1, 1, 0.6)
        assert (tcam.localizer.temporal.neighbours, tcam.localizer.temporal.mode) == (1, "before")
        assert (colocam.localizer.lr_step, colocam.localizer.epochs, colocam.localizer.sequence.frames) == (5, 10, 4)
        assert (colocam.localizer.joint.weight, colocam.localizer.seeds.foreground) == (4.0, 1000)
        assert colocam.classifier == tcam.classifier  # so that a run of one takes the classifier of the other


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yto")
    v1, v2 = write_small_lists(folder / "l1", "v1.0"), write_small_lists(folder / "l2", "v2.2")
    return {
        "yto_v1": write_v1(read_lists(v1), folder / "v1", frames=4),
        "yto_v2.2": write_v2(read_lists(v2), folder / "v2", frames=4),
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shipped")


@pytest.fixture
def home(tcam, shared, monkeypatch):
    """The folder of the runs and caches of all trainings here: stages of equal settings are trained once."""
    monkeypatch.setenv("TCAM_HOME", str(shared / "home"))
    return shared


@pytest.mark.slow
@pytest.mark.together
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_trains_on_a_small_tree(tcam, trees, home, name):
    threads, run = torch.get_num_threads(), name.replace("/", "-")
    found = tcam(
        *("train", "--videos", trees[name.split("/")[0]], "--config", REPO / "configs" / f"{name}.yaml"),
        *("--runs", home / "runs", "--name", run, *set_flags()),
        *("--set", "classifier.batch=8", "--set", "localizer.batch=8"),
    )
    assert found.code == 0, found.err
    assert torch.get_num_threads() == threads
    assert (home / "runs" / f"{run}-001" / "report").is_dir()


@pytest.mark.slow
@pytest.mark.together
@pytest.mark.parametrize("method", ["fcam", "pixelcam", "maxmin"])
def test_a_config_for_real_clips_trains_on_small_ones(tcam, tiny_videos, home, method):
    found = tcam(
        *("train", "--videos", tiny_videos, "--config", REPO / "configs" / "real" / f"{method}.yaml"),
        *("--runs", home / "runs", "--name", method, *set_flags((*SETTINGS, "model.backbone_options={}"))),
        *("--set", "classifier.frames_per_shot=1", "--set", "localizer.frames_per_shot=1"),
    )
    assert found.code == 0, found.err
    assert (home / "runs" / f"{method}-001" / "localizer" / "best_localization.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.together
def test_the_config_with_a_joint_term_of_features_trains_on_small_clips(tcam, tiny_videos, home):
    no_head = ("cam.method=cam", "localizer.rounds=1")  # the tests' weights bring no ImageNet classifier
    whole = ("input.resize=64", "localizer.batch=4", *no_head)
    found = tcam(
        *("train", "--videos", tiny_videos, "--config", REPO / "configs" / "real" / "colocam-small.yaml"),
        *("--runs", home / "runs", "--name", "colocam-small", *set_flags((*SETTINGS, *whole))),
    )
    assert found.code == 0, found.err
    run = home / "runs" / "colocam-small-001"
    config = load_config(run / "config.yaml")
    assert config.keeps_features
    assert config.localizer.joint.reads_features
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["joint"] for row in rows if row["stage"] == "localizer"] == [-config.localizer.joint.weight]


def test_configs_are_listed_printed_and_copied(tcam, tmp_path):
    found = tcam("configs")
    assert found.code == 0
    assert [line.split()[0] for line in found.out.splitlines()] == sorted(list_configs())
    text = (REPO / "configs" / "yto_v1" / "tcam.yaml").read_text()
    assert tcam("configs", "yto_v1/tcam").out == text
    assert tcam("configs", "yto_v1/tcam", "-o", tmp_path / "my.yaml").code == 0
    assert (tmp_path / "my.yaml").read_text() == text
    assert tcam("configs", "yto_v1/tcam", "-o", tmp_path / "my.yaml").code == 2
    found = tcam("configs", "yto_v1/tcan")
    assert found.code == 2
    assert "no config 'yto_v1/tcan': expected one of real/cam," in found.error


@pytest.mark.slow
def test_a_wheel_brings_the_configs_along(tmp_path):
    """Build in a copy; unpack the wheel as an installer does, and ask the installed code from there."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(REPO), str(copy)], check=True)
    for name in ("pyproject.toml",):
        (copy / name).write_text((REPO / name).read_text())
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = [name.partition(".data/data/")[2] for name in wheel.namelist()]
    shipped = {f"share/tcam/configs/{name}.yaml" for name in list_configs()} | {"share/tcam/configs/README.md"}
    assert shipped <= set(names)
