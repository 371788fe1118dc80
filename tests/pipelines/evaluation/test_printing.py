import json

from pipelines.evaluation.metrics import list_metrics
from pipelines.evaluation.printing import percent, print_metrics, print_table
from pipelines.evaluation.score import results_table
from pipelines.run.console import console
from tcam.metrics.corloc import CorLocResult
from tcam.types import CorLocProtocol
from tests.helpers.scored import score, undecided
from tests.helpers.tiny import whole_frame_truth


def test_the_printed_table_names_the_protocol_and_goes_to_stderr(tiny_data, capsys, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)
    rows = results_table(score(tiny_data, whole_frame_truth(tiny_data.index), tcam=undecided()), {})
    print_table(rows, "test split of [videos]")
    out, err = capsys.readouterr()
    assert out == ""
    text = " ".join(err.split())
    assert "test split of [videos]" in text
    for part in ("beetle", "fish", "full frame", "100.0", "IoU >= 0.5", "oracle"):
        assert part in text
    json.dumps([result.as_dict() for _, result in rows], allow_nan=False)


def test_the_other_figures_are_printed_with_their_protocols(tiny_data, capsys, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)
    scored = score(tiny_data, whole_frame_truth(tiny_data.index), chosen={"tcam": 0.5}, tcam=undecided())
    print_metrics(list_metrics(scored.methods, "validation"))
    out, err = capsys.readouterr()
    assert out == ""
    text = " ".join(err.split())
    for part in ("MaxBoxAccV2", "Top-1 localization", "Presence", "oracle", "arXiv:1611.06467"):
        assert part in text
    assert "false alarms" not in text  # no frame is known to hold nothing


def test_a_percentage_that_is_not_there_is_a_dash():
    assert percent(float("nan")) == "-"
    assert percent(99.96) == "100.0"


def test_hundreds_of_classes_are_not_columns_of_the_printed_table(capsys):
    protocol = CorLocProtocol("tags")
    for count, shown in ((20, True), (300, False)):
        found = CorLocResult(protocol, 0.4, {f"c{i}": float("nan") if i else 25.0 for i in range(count)}, 25.0, 30.0, 9)
        print_table([("tcam", found)], "test split")
        text = capsys.readouterr().err
        assert ("c19" in text) == shown
        assert ("300 classes: the report and results.json have the figures of each" in text) != shown
        assert "nan" not in text
        assert {"tcam", "25.0", "30.0"} <= set(text.split())
