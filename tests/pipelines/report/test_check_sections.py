import math

import numpy as np
import pytest

from pipelines.report.check_sections import check_sections, tag_choice_section
from pipelines.report.checks import Checks, VideoCheck

REASONS = {
    "videos": 30,
    "by_localizer": {
        "cam": {
            "threshold": 0.2,
            "share": 0.3,
            "shares": [0.1, 0.3, 0.5],
            "same": [0.2, 0.4, 0.6],
            "chance": [0.1, 0.1, 0.5],
        },
        "tcam": {
            "threshold": 0.72,
            "share": 0.29,
            "shares": [0.1, 0.3, 0.5],
            "same": [0.3, 0.8, 0.85],
            "chance": [0.1, 0.25, 0.5],
        },
    },
}


def check(video: str, tag: str, probability: float, best: str, *, steady: float = 0.5, **other: object) -> VideoCheck:
    values = {"over_time": 0.75, "found": True, "split": "test", **other}
    picture = np.full((3, 40, 60), 90, np.uint8)
    best_probability = max(probability, 1 - probability)
    return VideoCheck(
        video=video,
        tag=tag,
        frame=7,
        picture=picture,
        tag_probability=probability,
        best=best,
        best_probability=best_probability,
        over_thresholds=steady,
        **values,
    )


@pytest.fixture
def checks():
    videos = [
        check("dog/rex.mp4", "dog", 0.2, "cat", found=False),
        check("cat/tom.mp4", "cat", 0.9, "cat", over_time=math.nan),
        check("dog/bo.mp4", "dog", 0.1, "cat", steady=1.0),
    ]
    return Checks("tcam", 0.72, videos, ["dog/gone.mp4"], total=9, classes=2)


def test_the_curve_marks_the_choice_and_words_repeat_it():
    section = tag_choice_section(REASONS, method="tcam", thresholds={"cam": 0.2, "tcam": 0.72}, chosen_on="tags")
    excess = section["chart"].series[0]
    assert excess.name == "excess"
    assert [left for left, _ in excess.marks] == [50.0]  # 30 %, in the middle between 10 and 50 %
    assert "excess: 0.55" in section["chart"].slices[1].tip
    assert "IoU 0.80 in the same frame, 0.25 across videos" in section["text"]
    assert "cover 29.0 % of the frame on average: at threshold 0.72" in section["text"]
    assert section["text"].endswith("Thresholds of this run: cam 0.2, tcam 0.72.")
    assert section["videos"] == 30


def test_maps_that_agree_by_chance_alone_are_called_a_guess():
    found = {**REASONS["by_localizer"]["tcam"], "same": [0.1, 0.2, 0.3], "chance": [0.2, 0.25, 0.5]}
    reasons = {"videos": 2, "by_localizer": {"tcam": found}}
    section = tag_choice_section(reasons, method="tcam", thresholds={"tcam": 0.72}, chosen_on="tags")
    assert "agree no more in the same frame than across videos" in section["text"]
    assert section["text"].endswith("Thresholds of this run: tcam 0.72.")


def test_where_boxes_chose_both_choices_are_named():
    section = tag_choice_section(REASONS, method="cam", thresholds={"cam": 0.4, "tcam": 0.9}, chosen_on="validation")
    assert section["text"].endswith(
        "This run uses thresholds from validation boxes: cam 0.4, tcam 0.9. Tags would choose cam 0.2, tcam 0.72."
    )
    assert tag_choice_section(REASONS, method="tcam + crf", thresholds={}, chosen_on="tags") is None


def test_the_sheet_says_tag_certainty_and_whether_there_is_a_box(checks):
    sheet = check_sections(checks)["sheet"]
    assert [picture["caption"] for picture in sheet] == [
        f"{name}, frame 7" for name in ("dog/rex.mp4", "cat/tom.mp4", "dog/bo.mp4")
    ]
    labels = [panel["label"] for picture in sheet for panel in picture["panels"]]
    assert labels == ["dog, certainty 10 %, no box", "cat, certainty 45 %", "dog, certainty 10 %"]


def test_steadiness_is_a_mean_over_videos_and_leaves_gaps_out(checks):
    section = check_sections(checks)
    assert section["steadiness"] == {"over_time": "0.75", "over_thresholds": "0.67"}
    tips = [part.tip for part in section["charts"][0].slices]
    assert tips[2] == "mean IoU, from 0.4\nconsecutive frames: 0\ntwo thresholds: 2"
    assert tips[3] == "mean IoU, from 0.6\nconsecutive frames: 2\ntwo thresholds: 0"
    assert [cell.text for cell in section["lines"][1]["cells"]] == ["45.0", "90.0", "–", "50.0"]


def test_disagreements_are_listed_with_what_the_classifier_says(checks):
    found = [
        (line["name"], line["of_tag"].text, line["best"], line["of_best"].text)
        for line in check_sections(checks)["differing"]
    ]
    assert found == [("dog/bo.mp4", "10.0", "cat", "90.0"), ("dog/rex.mp4", "20.0", "cat", "80.0")]


def test_without_a_readable_video_only_the_names_remain():
    section = check_sections(Checks("tcam", 0.5, [], ["dog/gone.mp4"], total=1, classes=1))
    assert section["left_out"] == ["dog/gone.mp4"]
    assert (section["sheet"], section["lines"], section["charts"]) == ([], [], [])
