import pytest

from pipelines.models.thresholds import (
    read_other_thresholds,
    read_presence,
    read_tag_reasons,
    read_thresholds,
    save_thresholds,
)
from tcam.errors import DataError


def test_thresholds_and_presence_come_back(tmp_path):
    path = tmp_path / "evaluation" / "thresholds.json"
    presence = {"layercam": None, "tcam": 0.25}
    others = {"tags": {"tcam": 0.75}}
    save_thresholds(path, {"layercam": 0.1, "tcam": 0.5}, chosen_on="validation", presence=presence, others=others)
    assert read_other_thresholds(path) == others
    assert read_thresholds(path) == ({"layercam": 0.1, "tcam": 0.5}, "validation")
    assert read_presence(path) == {"tcam": 0.25}


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"thresholds": {"tcam": "high"}, "chosen_on": "x"}'])
def test_a_run_without_thresholds_says_what_to_do(tmp_path, text):
    path = tmp_path / "thresholds.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"expected the run's map thresholds in .*, found none .*; resume the run"):
        read_thresholds(path)


def test_thresholds_of_a_run_that_knew_no_presence_are_read(tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text('{"thresholds": {"tcam": 0.5}, "chosen_on": "validation"}')
    assert read_presence(path) == {}
    assert read_other_thresholds(path) == {}


def test_what_a_choice_by_tags_rests_on_comes_back(tmp_path):
    path = tmp_path / "thresholds.json"
    reasons = {"by_localizer": {"tcam": {"threshold": 0.5, "same": [0.25]}}, "videos": 3}
    save_thresholds(path, {"tcam": 0.5}, chosen_on="tags", presence={}, tags=reasons)
    assert read_tag_reasons(path) == reasons
    for other in (None, {"curve": [0.1]}):
        save_thresholds(path, {"tcam": 0.5}, chosen_on="tags", presence={}, tags=other)
        assert read_tag_reasons(path) is None
