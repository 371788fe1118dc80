"""The table of methods, from evaluations written by hand, and one whole run of the tool."""

import sys

import pytest

from pipelines.cli import app as cli
from pipelines.evaluation.metrics import Metric
from pipelines.evaluation.results import Evaluation, Score
from pipelines.parallel.pool import one_thread
from tcam.metrics.corloc import CorLocResult
from tcam.types import CorLocProtocol
from tests.helpers.documents import REPO
from tests.helpers.tiny import SETTINGS


def score(method, choice, macro):
    result = CorLocResult(CorLocProtocol(choice), None, {"cat": macro}, macro, macro, 12, per_video={"cat/a": macro})
    return Score(method, result)


def evaluation(validation, oracle, v2, *, more=()):
    scores = [score("full frame", "none", 5.0), score("layercam", "validation", 1.0)]
    scores += [score("tcam", "validation", validation), score("tcam", "oracle", oracle)]
    scores += [score(*row) for row in more]
    return Evaluation("test", ("cat",), tuple(scores), metrics=(Metric("tcam", "MaxBoxAccV2", v2, "%", ""),))


def test_the_table_has_baselines_once_and_each_row_over_its_seeds(bench):
    found = bench.method_table(
        {"tcam, resnet50": [evaluation(30.0, 40.0, 20.0), evaluation(34.0, 40.0, 22.0)]},
        {"tcam, resnet50": (123.4, 32.54)},
        refine=False,
    )
    assert found[0].startswith("12 frames of 1 videos; percent")
    assert found[4] == "| full frame | 5.0 | – | – | – | – |  |  |"
    assert found[5] == "| tcam, resnet50 | 32.0 ± 2.8 | 40.0 | 21.0 ± 1.4 | – | – | 123 | 32.5 |"
    assert len(found) == 6


def test_refined_maps_are_a_row_of_their_own(bench):
    more = [("tcam + crf", "validation", 50.0), ("tcam + crf", "oracle", 60.0)]
    found = bench.method_table(
        {"tcam": [evaluation(30.0, 40.0, 20.0, more=more)]},
        {"tcam": (10.0, 1.0), "tcam + crf": (150.0, 1.0)},
        refine=True,
    )
    assert [line.split(" | ")[:3] for line in found[5:]] == [
        ["| tcam", "30.0", "40.0"],
        ["| tcam + crf", "50.0", "60.0"],
    ]


@pytest.mark.slow
def test_the_tool_trains_measures_and_reads_what_is_there(bench, tiny_videos, tmp_path, monkeypatch, capsys):
    import real

    told = []

    def tcam(arguments):  # in this process: one of its own for each of four commands would load everything again
        monkeypatch.setattr(sys, "argv", ["tcam", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            cli.run()
        assert leaving.value.code in (0, None)
        told.append(capsys.readouterr().err)

    command = [REPO / "tools/bench/methods.py", "--videos", tiny_videos, "--runs", tmp_path / "runs"]
    command += ["--methods", "cam", "pixelcam", "--seeds", "0", "--ddt", "--backbones", "test_resnet"]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    monkeypatch.setenv("TCAM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(real, "tcam", tcam)
    printed = []
    for trainings in (4, 0):  # two runs, each trained and evaluated; then they are there
        told.clear()
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        with one_thread():  # the tool measures with one
            bench.main()
        assert len(told) == trainings
        assert any("localizer 1/1" in text for text in told) == bool(trainings)
        printed.append(capsys.readouterr().out)
    tables = [[line.split(" | ")[:-2] for line in text.splitlines() if line.startswith("| ")] for text in printed]
    assert tables[0] == tables[1]
    names = [row[0].removeprefix("| ") for row in tables[0]]
    assert names[1:] == [
        *("centre box (50 %)", "full frame", "DDT (no training)"),
        *("cam, test_resnet", "pixelcam, test_resnet"),
    ]


def test_rows_that_cannot_be_made_are_refused_before_anything_is_trained(bench, tiny_videos, tmp_path, monkeypatch):
    base = ["bench_methods", "--videos", str(tiny_videos), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", [*base, "--methods", "negev"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    monkeypatch.setattr(sys, "argv", [*base, "--methods", "fcam", "--backbones", "resnet5000"])
    with pytest.raises(SystemExit, match=r"error: row 'fcam, resnet5000': .*resnet5000"):
        bench.main()
    assert not (tmp_path / "runs").exists()
