import json

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from pipelines.parallel.placement import Placement
from pipelines.training.cam_cache import write_cams
from tests.helpers.process_groups import Case, in_process_group, train_case
from tests.helpers.tiny import SIDE, files_of, tiny_config, tiny_localizer

pytestmark = [pytest.mark.together, pytest.mark.slow]

EPOCHS = (
    "classifier.epochs=2",
    "localizer.epochs=2",
    "classifier.frames_per_shot=2",
    "localizer.frames_per_shot=2",
    "localizer.lr=1e-4",  # more, and so small a network makes a difference of a rounding large
)
ONE_EPOCH = (*EPOCHS, "classifier.epochs=1", "localizer.epochs=1")
DROPPING = "model.backbone_options={drop_path_rate: 0.5}"
CASES = (
    Case("classifier", "classifier", (*EPOCHS, DROPPING, "classifier.batch=3")),  # 8 clips: 3 = 1 + 2, and 2
    Case("tcam", "localizer", (*EPOCHS, "localizer.batch=7", "localizer.seeds.foreground=20")),  # 7 = 3 + 4, and 1
    Case(
        "colocam",
        "localizer",
        (*EPOCHS, "method=colocam", "localizer.sequence.frames=2", "localizer.frame_limit=1.0", "localizer.batch=6"),
    ),
    Case(
        "colocam-features",
        "localizer",
        (
            *(*EPOCHS, "method=colocam", "localizer.sequence.frames=2", "localizer.frame_limit=1.0"),
            *("localizer.batch=6", "localizer.joint.space=features"),
        ),
    ),
    *(
        Case(
            name, "classifier", (*ONE_EPOCH, "classifier.batch=3", f"classifier.baseline={name}", "classifier.lr=1e-4")
        )
        for name in ("hide_and_seek", "adl", "acol")
    ),
    Case("pixelcam", "localizer", (*ONE_EPOCH, "method=pixelcam", "localizer.batch=7", DROPPING)),
    Case("negev", "localizer", (*ONE_EPOCH, "method=negev", "localizer.batch=3")),  # some shares hold one kind alone
    Case("maxmin", "localizer", (*ONE_EPOCH, "method=maxmin", "localizer.batch=7")),
)
CUTMIX = Case("cutmix", "classifier", (*ONE_EPOCH, "classifier.batch=3", "classifier.baseline=cutmix"))
"""Windows come from a process's own share: losses depend on the number of processes."""


def train_all(data, cams, folder, *group) -> None:
    for case in (*CASES, CUTMIX):
        train_case(case, data, cams, folder / case.name, *group)


@pytest.fixture(scope="module")
def cam_folder(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("group-cams")
    write_cams(
        tiny_data.index, tiny_localizer(), folder, settings=tiny_config().cam, size=(SIDE, SIDE), placement=Placement(0)
    )
    return folder


@pytest.fixture(scope="module")
def trained(tiny_data, cam_folder, tmp_path_factory):
    """Give the folders of the same trainings in one process and in two."""
    folder = tmp_path_factory.mktemp("group")
    train_all(tiny_data, cam_folder, folder / "one")
    in_process_group(2, folder / "two", train_all, (tiny_data, cam_folder, folder / "two"))
    return folder / "one", folder / "two"


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_two_processes_lose_the_same_in_every_step_and_end_with_the_same_weights(name, trained):
    one, two = (folder / name for folder in trained)
    steps = [json.loads((folder / "steps.json").read_text()) for folder in (one, two)]
    assert len(steps[0]) == len(steps[1]) >= 3
    for alone, together in zip(*steps, strict=True):
        assert together == pytest.approx(alone, rel=1e-6)
    weights = [load_file(folder / "last.safetensors") for folder in (one, two)]
    for key, alone in weights[0].items():
        torch.testing.assert_close(weights[1][key], alone, rtol=1e-6, atol=1e-8)


def test_two_processes_train_with_cutmix_too(trained):
    steps = [json.loads((folder / "cutmix" / "steps.json").read_text()) for folder in trained]
    assert len(steps[0]) == len(steps[1])
    assert all(0 < step["classes"] < 100 for step in steps[1] if step)  # at the end of an epoch there are none
    assert steps[0] != steps[1]


class PowerCut(BaseException):
    """Ends a training in all processes of a group at once, as a kill would."""


def cut_off_and_go_on(data, cams, folder, group) -> None:
    """Train a case in one go, and again cut off in its second step and resumed."""
    case, real, taken = CASES[2], torch.optim.SGD.step, []
    train_case(case, data, cams, folder / "whole", group)

    def step(self, *arguments, **keywords):
        taken.append(1)
        if len(taken) == 2:
            raise PowerCut
        return real(self, *arguments, **keywords)

    torch.optim.SGD.step = step
    with pytest.raises(PowerCut):
        train_case(case, data, cams, folder / "parts", group)
    dist.barrier()
    train_case(case, data, cams, folder / "parts", group)


def test_two_processes_go_on_from_a_step_byte_for_byte(tiny_data, cam_folder, tmp_path):
    in_process_group(2, tmp_path, cut_off_and_go_on, (tiny_data, cam_folder, tmp_path))
    whole, parts = (files_of(tmp_path / name) for name in ("whole", "parts"))
    for name in ("metrics.jsonl", "last.safetensors", "best_localization.safetensors"):
        assert whole[name] == parts[name]


def test_validation_counts_every_frame_once_however_the_batches_were_shared(trained):
    for case in CASES:
        logs = [(folder / case.name / "metrics.jsonl").read_text() for folder in trained]
        one, two = ([json.loads(line) for line in log.splitlines()] for log in logs)
        assert [row["epoch"] for row in two] == ([1] if "localizer.epochs=1" in case.overrides else [1, 2])
        for key in ("epoch", "val_corloc", "val_accuracy"):
            assert [row[key] for row in two] == [row[key] for row in one]
