"""Every code block of README, docs and the folders' READMEs works."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import pipelines.api
from pipelines.cli import app as cli
from pipelines.config.methods import METHODS
from pipelines.data.sources import DATASETS
from pipelines.inference.sinks import SINKS
from tcam.video.reader import stream_frames
from tests.helpers.documents import (
    REPO,
    BlockError,
    broken_links,
    documents,
    make_workspace,
    run_blocks,
    run_example,
    train_tiny,
)
from tests.helpers.exports import traced_once
from tests.helpers.tiny import tiny_config

pytestmark = pytest.mark.together


def call_tcam(arguments):
    """Run ``tcam`` in this process; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tcam", *arguments])
        with pytest.raises(SystemExit) as leaving:
            cli.run()
    return int(leaving.value.code or 0)


EXAMPLES = {
    "predict_video.py": (
        ("runs/pets-001", "holiday.mp4"),
        r"(?s)0\.00 s  (dog|cat) \(0\.\d\d\)  \d+, .*0\.29 s  (dog|cat|nothing)",
    ),
    "watch_camera.py": (("runs/pets-001", "holiday.mp4", "--class-name", "dog"), r"0\.00 s  (dog  Box|nothing)"),
    "save_maps.py": (("runs/pets-001", "maps", "photo.png"), r"maps/photo-(dog|cat)-(none|\d+-\d+-\d+-\d+)\.png"),
    "train_and_evaluate.py": (
        ("videos/", "--methods", "cam", "--config", "tiny.yaml", "--epochs", "1"),
        r"(?s)run +method.*cam-001 +layercam +validation",
    ),
    "read_box_table.py": (("boxes.csv",), r"(?s)8 of 8 frames hold an object.*holiday\.mp4 (dog|cat) +1 +\d"),
    "draw_boxes.py": (("holiday.mp4", "boxes.csv", "drawn.mp4"), ""),
    "evaluate_boxes.py": (("found.csv", "videos/boxes.csv"), r"(?s)frames compared: 2, .*CorLoc 50\.0 %.*dog +50"),
    "add_cam_method.py": (("runs/pets-001", "holiday.mp4"), r"(?s)0 layer_cam Box.*7 positive_grad_cam (Box|None)"),
}
"""Arguments of each example, and what it prints."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patch, traced_once():
        patch.setenv("TCAM_HOME", str(folder / "home"))
        patch.setenv("TCAM_DATA", str(folder / "data"))
        yield folder


@pytest.fixture(scope="module")
def made_once(home):
    return make_workspace(home / "workspace", call_tcam)


@pytest.fixture(autouse=True)
def tables_restored():
    """Take the rows that examples add out of the tables again."""
    kept = [(table, dict(table)) for table in (METHODS, DATASETS, SINKS)]
    yield
    for table, rows in kept:
        table.clear()
        table.update(rows)


@pytest.fixture
def workspace(made_once, tmp_path, monkeypatch):
    """A copy of the workspace, which is the present folder."""
    folder = shutil.copytree(made_once, tmp_path / "workspace", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(REPO).as_posix())
def test_the_blocks_of_a_document_work(path, workspace, monkeypatch):
    monkeypatch.setattr(pipelines.api, "train", train_tiny(pipelines.api.train))
    run_blocks(path, call_tcam)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("```bash\ntcam predict runs/pets-001 --sauce holiday.mp4\n```", "No such option: --sauce"),
        ("```bash\ntcam predict runs/absent-001 --source holiday.mp4\n```", "runs/absent-001 is not in the folder"),
        ("```bash\ntcam predict runs/pets-001 --source absent.mp4\n```", "absent.mp4 is not in the folder"),
        ("```bash\ntcam predict runs/pets-001 --source rtsp://door --trak\n```", "No such option: --trak"),
        ("```bash\ntcam train --videos videos/ --set localizer.epoch=3\n```", "unknown setting 'localizer.epoch'"),
        ("```bash\ntcam train --videos yto_v1 --config configs/yto_v1/absent.yaml\n```", "absent.yaml is not in"),
        ("```bash\ntcam train --videos videos/ --config configs/real/tcam.yaml\n```", "weights that users do not have"),
        ("```bash\ntorchrun --no-python tcam train --video videos/\n```", "No such option: --video"),
        ("```bash\ntcam predict runs/pets-001 --source holiday.mp4 --class bird\n```", "exit code 2"),
        ("```bash\ntcam retrain\n```", "No such command 'retrain'"),
        ("```bash\nls | tkam predict\n```", "unknown command 'tkam'"),
        ("```bash\npip install 'tcam[rays]'\n```", "no such extra: rays"),
        ("```bash\ntools/absent\n```", "no script that can be run at tools/absent"),
        ("```bash\npython tools/bench/real.py --sead 1\n```", "has no --sead"),
        ("```python\nimport tcam\ntcam.localise\n```", "has no attribute 'localise'"),
        ("```yaml\nmethod: tcam\nseeds: 1\n```", "unknown setting 'seeds'"),
        ("```json\n{'frame': 0}\n```", "Expecting property name"),
        ("```\ntcam predict runs/pets-001\n```", "commands in a block without a label"),
        ("```sh\nls\n```", "a block of 'sh'"),
    ],
)
def test_a_block_that_does_not_work_fails(block, reason, workspace):
    document = Path("document.md")
    document.write_text(f"# Title\n\n{block}\n")
    with pytest.raises(BlockError, match=reason.replace("(", r"\(")):
        run_blocks(document, call_tcam)


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(REPO).as_posix())
def test_the_links_of_a_document_lead_somewhere(path):
    assert broken_links(path) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    document = tmp_path / "a.md"
    document.write_text("# The title, here\n[1](a.md#the-title-here) [2](b.md) [3](#nothing) [4](https://x.org/b.md)\n")
    assert broken_links(document) == ["b.md", "#nothing"]


def test_blocks_share_names_and_files_from_top_to_bottom(workspace):
    document = Path("document.md")
    document.write_text(
        "```python\ncount = 1\n```\n\n```python\nassert count == 1\nopen('one.txt', 'w').close()\n```\n"
        "```bash\ntcam predict runs/pets-001 --source holiday.mp4 -o boxes.csv  # a comment\n```\n"
    )
    assert run_blocks(document, call_tcam) == 3
    assert {"one.txt", "boxes.csv"} <= {path.name for path in workspace.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, workspace, capsys):
    write_inputs_of_examples()
    arguments, expected = EXAMPLES[name]
    run_example(f"docs/examples/{name}", arguments)
    assert re.search(expected, capsys.readouterr().out)
    if name == "draw_boxes.py":
        assert len(list(stream_frames(Path("drawn.mp4")))) == 8


def write_inputs_of_examples():
    """Write what the examples read beside videos and runs: settings, a box table, boxes, a picture."""
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny_config("localizer.batch=4").model_dump(mode="json")))
    assert call_tcam(["predict", "runs/pets-001", "--source", "holiday.mp4", "-o", "boxes.csv", "--track"]) == 0
    lines = Path("videos/boxes.csv").read_text().splitlines()
    first, second = [line for line in lines if "rex" in line][:2]
    half_right = [first, ",".join([*second.split(",")[:2], "0", "0", "1", "1"])]
    Path("found.csv").write_text("\n".join([f"{lines[0]},class", *(f"{line},dog" for line in half_right)]))
    Image.new("RGB", (96, 80), "green").save("photo.png")


def test_every_example_is_tried_and_listed():
    scripts = {path.name for path in (REPO / "docs/examples").glob("*.py")}
    elsewhere = set(re.findall(r"add_\w+\.py", (REPO / "tests/pipelines/test_extensions.py").read_text()))
    assert scripts == set(EXAMPLES) | elsewhere
    listed = (REPO / "docs/examples/README.md").read_text()
    assert {name for name in scripts if f"({name})" not in listed} == set()
