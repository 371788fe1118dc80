"""How much work the steps of a run are."""

from pipelines.config.schema import load_config
from pipelines.config.shipped import configs_folder
from pipelines.models.run import Run
from pipelines.training.amounts import amounts_of_work
from tcam.types import VideoIndex
from tests.helpers.tiny import CPU, record, tiny_config


def run_of(folder, config):
    records = (record("a/0", 0, shots=[(0, 40), (40, 44)]), record("b/0", 1), record("a/1", 0, split="test"))
    return Run(folder, config, CPU, VideoIndex(("a", "b"), records), ())


def test_every_stage_of_the_run_has_a_step_in_order(tmp_path):
    run = run_of(tmp_path, load_config(configs_folder() / "real" / "tcam-small.yaml", ["model.weights=random"]))
    amounts = amounts_of_work(run)
    rounds = ["cams", "localizer-1", "cams-2", "localizer-2", "cams-3", "localizer"]
    assert list(amounts) == ["classifier", *rounds, "evaluation"]
    assert amounts["cams"] == 2 * (8 + 4 + 4)  # at most eight frames a shot; the walk, and the backbone
    assert amounts["cams-2"] == 8 + 4 + 4  # whose features are kept then
    assert amounts["localizer-1"] == amounts["localizer"]
    assert amounts["evaluation"] == 2 * 2 * 8 * 3  # two maps of eight frames of three videos, for thresholds and report


def test_work_grows_with_epochs_and_a_classifier_alone_has_two_steps(tmp_path):
    one, three = (amounts_of_work(run_of(tmp_path, tiny_config(f"localizer.epochs={n}"))) for n in (1, 3))
    assert three["localizer"] == 3 * one["localizer"]
    assert three["classifier"] == one["classifier"]
    assert list(amounts_of_work(run_of(tmp_path, tiny_config("method=cam")))) == ["classifier", "evaluation"]
