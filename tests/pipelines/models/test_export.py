import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

import tcam
from pipelines.config.schema import load_config
from pipelines.inference.box_table import read_boxes
from pipelines.inference.outputs import is_replaceable
from pipelines.models.export import (
    ExportRequest,
    check_method,
    export_run,
    facts_of,
    write_export,
    write_openvino,
)
from pipelines.models.exported import open_exported
from pipelines.models.localizer import NetworkLocalizer, build_network
from pipelines.models.run import load_localizers, load_run
from pipelines.streaming.localizer import StreamLocalizer
from tcam.errors import ConfigError
from tests.helpers.exports import some_facts, traced_once
from tests.helpers.other_processes import check_fork, steps, steps_in_fresh_process
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import CPU, SETTINGS, SIDE, TinyRun, tiny_localizer

pytestmark = [
    pytest.mark.together,
    pytest.mark.slow,
    pytest.mark.skipif(  # not imported here: a second, in every process that collects the tests
        None in map(find_spec, ("onnxscript", "onnxruntime", "openvino")),
        reason="the exporters or ONNX Runtime or OpenVINO are not installed: pip install 'tcam[export]'",
    ),
]

REPO = Path(__file__).parents[3]
ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
FORMATS = ["onnx", "openvino", "torch-export"]


def some_frames(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)


def cam_run(tiny_run: TinyRun, folder: Path) -> Path:
    """Give the run as if it had been trained with --method cam."""
    run = shutil.copytree(tiny_run.folder, folder / "cam-001")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**settings, "method": "cam"}))
    return run


def convert(onnx: Path, target: Path) -> None:
    """Write an ONNX file as OpenVINO, as an export of its run does after it has made the same graph."""
    write_openvino(onnx.read_bytes(), open_exported(onnx)[1], target, None)


@pytest.fixture(scope="module", autouse=True)
def one_trace() -> Iterator[None]:
    with traced_once():
        yield


@pytest.fixture(scope="module")
def exports(tiny_run, tmp_path_factory) -> Callable[[str], Path]:
    """Give a function that gives the finished run as a file of a format, made once."""
    folder = tmp_path_factory.mktemp("exports")

    def export(name: str) -> Path:
        file = folder / f"tiny{ENDINGS[name]}"
        if not file.exists():
            assert export_run(ExportRequest(tiny_run.folder, name, file), quiet=True) == file
        return file

    return export


@pytest.fixture(scope="module")
def cam_file(tmp_path_factory) -> Path:
    """Return the ONNX file of a classifier whose maps are LayerCAM's; an OpenVINO file lies beside it."""
    file = tmp_path_factory.mktemp("cam") / "cam.onnx"
    write_export(tiny_localizer(), some_facts(), file)
    convert(file, file.with_suffix(".xml"))
    return file


def run_python(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment, check=False
    )


def differing_boxes(one: Path, other: Path) -> int:
    """Count the frames whose boxes differ by more than a pixel on any side, or of which one has none."""
    first, second = (read_boxes(path)[["x0", "y0", "x1", "y1"]].to_numpy() for path in (one, other))
    return int((~np.isclose(first, second, rtol=0, atol=1, equal_nan=True)).any(axis=1).sum())


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_takes_the_place_of_an_export_alone(tcam, exports, tiny_run, tmp_path, name):
    file = exports(name)
    assert is_replaceable(file)
    assert is_replaceable(file.with_suffix(".bin"))
    target = tmp_path / f"mine{ENDINGS[name]}"
    target.write_text("another model")
    found = tcam("export", tiny_run.folder, "--format", name, "-o", target)
    assert found.code == 2
    assert "exists and was not written by tcam" in found.error
    assert target.read_text() == "another model"


@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_file_gives_the_boxes_of_its_run(tcam, exports, tiny_run, tmp_path, name):
    for model, table in ((tiny_run.folder, "run.csv"), (exports(name), "file.csv")):
        done = tcam("predict", model, "--source", tiny_run.videos, "-o", tmp_path / table, "--workers", "0", "-q")
        assert done.code == 0, done.err
    run, file = (read_boxes(tmp_path / table) for table in ("run.csv", "file.csv"))
    assert len(run) == len(file) > 50
    assert differing_boxes(tmp_path / "run.csv", tmp_path / "file.csv") <= len(run) // 100
    assert (run["class"] == file["class"]).all()
    for column in ("class_score", "score"):
        assert np.abs(run[column] - file[column]).max() < 1e-4
    about = json.loads((tmp_path / "file.csv.meta.json").read_text())
    own = json.loads((tmp_path / "run.csv.meta.json").read_text())
    assert [about[key] for key in ("run", "method", "classes", "threshold", "weights_hash", "config")] == [
        own[key] for key in ("run", "method", "classes", "threshold", "weights_hash", "config")
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_file_works_in_forked_and_fresh_processes(exports, name):
    localizer = StreamLocalizer.of_run(exports(name))
    check_fork(localizer)
    assert steps_in_fresh_process(localizer) == steps(localizer)


@pytest.mark.parametrize("name", FORMATS[:2])
def test_an_exported_file_localizes_in_arrays_as_its_run_does(exports, tiny_run, name):
    frames = some_frames(11).transpose(0, 2, 3, 1)
    wanted, found = (tcam.Localizer(source, threshold=0.5)(frames) for source in (tiny_run.folder, exports(name)))
    for one, other in zip(wanted, found, strict=True):
        assert (other.box, other.class_name) == (one.box, one.class_name)
        np.testing.assert_allclose(other.map, one.map, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS[:2])
@pytest.mark.parametrize("command", ["predict", "stream"])
def test_boxes_are_written_by_a_process_that_never_loads_pytorch(exports, tiny_videos, tmp_path, name, command):
    video, table = tiny_videos / "fish" / "fish-00.mp4", tmp_path / "boxes.jsonl"
    extra = ["--save-video", str(tmp_path / "seen"), "--workers", "0"] if command == "predict" else ["--smooth", "1"]
    words = ["tcam", command, str(exports(name)), "--source", str(video), "-o", str(table), *extra]
    code = f"""
import sys
from pipelines.cli.app import main
sys.argv = {words}
try:
    main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
print(sorted({{"torch", "timm", "torchvision"}} & set(sys.modules)))
"""
    done = run_python(code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert len([row for row in rows if "frame" in row]) == TINY_FRAMES
    assert command == "stream" or (tmp_path / "seen" / "fish-00.mp4").stat().st_size > 1000


def test_child_processes_give_the_same_bytes(tcam, exports, tiny_run, tmp_path):
    for workers in ("0", "2"):
        table = tmp_path / f"{workers}.csv"
        done = tcam("predict", exports("onnx"), "--source", tiny_run.videos, "-o", table, "--workers", workers, "-q")
        assert done.code == 0, done.err
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_any_client_can_read_what_it_must_know(exports, tiny_run):
    import onnxruntime

    session = onnxruntime.InferenceSession(exports("onnx"))
    assert [(item.name, item.type, item.shape) for item in session.get_inputs()] == [
        ("frames", "tensor(uint8)", ["batch", 3, SIDE, SIDE])
    ]
    assert [item.name for item in session.get_outputs()] == ["class_probabilities", "maps"]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["tcam"])
    thresholds = json.loads((tiny_run.folder / "evaluation" / "thresholds.json").read_text())["thresholds"]
    assert (facts["classes"], facts["size"], facts["run"]) == (["beetle", "fish"], [SIDE, SIDE], "tiny-001")
    assert (facts["method"], facts["threshold"]) == ("tcam", thresholds["tcam"])
    assert len(facts["mean"]) == len(facts["std"]) == 3


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_tells_nothing_of_where_it_was_made(exports, tiny_run, name):
    path = exports(name)
    parts = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = [archive.read(item) for item in archive.namelist()]
    for here in (REPO, sys.prefix, tiny_run.folder, Path.home()):
        assert not [part for part in parts if str(here).encode() in part], here


def test_settings_keep_the_names_alone_of_files(tiny_run):
    run = load_run(tiny_run.folder, device="cpu")
    for place in ("/data/of/anna/weights.pth", r"D:\anna\weights.pth", "weights.pth"):
        config = load_config(tiny_run.folder / "config.yaml", [f"model.weights={place}"])
        found = facts_of(replace(run, config=config), load_localizers(run)["tcam"]).config["model"]
        assert found == {**config.model.model_dump(mode="json"), "weights": "weights.pth"}


def test_every_format_says_the_same_of_itself(exports):
    first, *others = (open_exported(exports(name))[1] for name in ENDINGS)
    assert others == [first, first]


@pytest.mark.parametrize("label", [None, 0, 1])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_map_of_one_class_is_that_of_pytorch_for_any_class_and_number_of_frames(cam_file, label, suffix):
    engine = open_exported(cam_file.with_suffix(suffix))[0].unpack()
    frames = some_frames(5)
    found, wanted = engine.find(frames, label), tiny_localizer().find(frames, label)
    assert found.maps.dtype == np.float32
    assert np.abs(found.maps - wanted.maps).max() < 1e-4
    assert np.abs(found.probabilities - wanted.probabilities).max() < 1e-5
    assert found.labels.tolist() == wanted.labels.tolist()
    alone = engine.find(frames[3:4], label)
    assert np.abs(alone.maps[0] - found.maps[3]).max() < 1e-6


def test_a_run_without_a_decoder_is_exported_with_its_own_threshold(tcam, tiny_run, tmp_path):
    run = cam_run(tiny_run, tmp_path)
    file = tmp_path / "cam.pt2"  # the format that is written soonest; the others have maps of one class in `cam_file`
    done = tcam("export", run, "--format", "torch-export", "-o", file, "-q")
    assert (done.code, done.out, done.err) == (0, f"{file}\n", "")
    facts = open_exported(file)[1]
    thresholds = json.loads((run / "evaluation" / "thresholds.json").read_text())["thresholds"]
    assert (facts.method, facts.threshold) == ("layercam", thresholds["layercam"])
    video = tiny_run.videos / "fish" / "fish-00.mp4"
    for model, table in ((run, "run.csv"), (file, "file.csv")):
        assert tcam("predict", model, "--source", video, "-o", tmp_path / table, "--class", "beetle", "-q").code == 0
    assert differing_boxes(tmp_path / "run.csv", tmp_path / "file.csv") == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("method", "pooling", "fits"),
    [
        ("decoder", "max", True),
        ("cam", "lse", True),
        ("layercam", "wgap", True),
        ("gradcam++", "gap", True),
        ("prior", "lse", True),
        ("layercam", "lse", False),
        ("scorecam", "wgap", False),
        ("sscam", "wgap", False),
    ],
)
def test_only_what_one_pass_forward_gives_is_exported(method, pooling, fits):
    settings = load_config(None, [*SETTINGS, f"model.pooling={pooling}", "cam.method=cam"]).model
    network = build_network(settings, 2, decoder=method == "decoder", seed=0).eval()
    if fits:
        check_method(NetworkLocalizer(network, method, CPU))
        return
    with pytest.raises(
        ConfigError, match=f"cam.method {method} with pooling {pooling} needs .* --method tcam or colocam"
    ):
        check_method(NetworkLocalizer(network, method, CPU))


def test_flags_that_do_not_fit_are_refused_before_anything_is_done(tcam, tiny_run, exports, tmp_path):
    done = tcam("export", tiny_run.folder, "-o", tmp_path / "a.xml")
    assert (done.code, done.error) == (2, f"-o {tmp_path}/a.xml: --format onnx writes a file that ends in .onnx")
    done = tcam("export", tiny_run.folder, "--int8")
    assert (done.code, "--int8 and --calibrate" in done.error) == (2, True)
    done = tcam("export", tiny_run.folder, "--int8", "--calibrate", tiny_run.videos)
    assert (done.code, "--int8 is for --format openvino" in done.error) == (2, True)
    done = tcam("export", tmp_path / "none")
    assert (done.code, "expected a run folder" in done.error) == (3, True)
    done = tcam("predict", exports("onnx"), "--source", tiny_run.videos, "--device", "cuda:0")
    assert (done.code, "exported files run on the CPU" in done.error) == (2, True)
    for flag in ("--compile", "--half"):
        done = tcam("stream", exports("onnx"), "--source", next(tiny_run.videos.rglob("*.mp4")), flag)
        assert (done.code, f"{flag} is for a run, got the exported file" in done.error) == (2, True)
    done = tcam("predict", exports("onnx"), "--source", tiny_run.videos, "--class", "cow")
    assert (done.code, "the run knows beetle, fish" in done.error) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ENDINGS)
def test_a_file_that_is_damaged_or_not_ours_is_one_line(tcam, tiny_videos, tmp_path, name):
    file = tmp_path / f"a{ENDINGS[name]}"
    done = tcam("predict", file, "--source", tiny_videos)
    assert (done.code, "expected an exported file at" in done.error) == (3, True)
    file.write_bytes(b"not a model" * 100)
    done = tcam("predict", file, "--source", tiny_videos)
    assert (done.code, "cannot read the exported model" in done.error) == (5, True)


def test_a_model_of_someone_else_is_told_apart(tcam, cam_file, tiny_videos, tmp_path):
    import onnx

    model = onnx.load(cam_file)
    for facts, said in ((None, "found no 'tcam' in its metadata"), ('{"version": 2}', "is not this tcam's")):
        del model.metadata_props[:]
        if facts is not None:
            onnx.helper.set_model_props(model, {"tcam": facts})
        onnx.save(model, tmp_path / "other.onnx")
        done = tcam("predict", tmp_path / "other.onnx", "--source", tiny_videos)
        assert (done.code, said in done.error) == (5, True), done.error


@pytest.mark.parametrize(("package", "name"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_without_the_package_that_runs_a_file_it_is_named(tcam, exports, tiny_videos, monkeypatch, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    done = tcam("predict", exports(name), "--source", tiny_videos)
    assert (done.code, "pip install 'tcam[export]'" in done.error) == (5, True)


def test_without_the_exporter_it_is_named(tcam, tiny_run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = tcam("export", tiny_run.folder, "-o", tmp_path / "a.onnx", "-q")
    assert (done.code, done.error) == (
        5,
        "--format onnx needs onnxscript, which is not installed: pip install 'tcam[export]'",
    )
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_stay_near_the_run(tcam, tiny_run, tmp_path):
    pytest.importorskip("nncf", reason="nncf is not installed: pip install 'tcam[export]'")
    file = tmp_path / "tiny.xml"
    done = tcam("export", tiny_run.folder, "--format", "openvino", "--int8", "--calibrate", tiny_run.videos, "-o", file)
    assert (done.code, done.out) == (0, f"{file}\n"), done.err
    assert "64 calibration frames of 8 videos" in done.err
    packed, facts = open_exported(file)
    assert facts.numbers == "int8"
    found = packed.unpack().find(some_frames(2), None)
    assert found.maps.shape == (2, SIDE, SIDE)
    assert 0 <= found.maps.min() <= found.maps.max() <= 1
