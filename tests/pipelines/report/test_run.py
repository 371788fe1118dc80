import dataclasses
import re

import pytest
import torch

from pipelines.evaluation.results import Evaluation, read_evaluation
from pipelines.evaluation.tag_thresholds import choose_by_tags
from pipelines.inference.overlay import FOUND_COLOUR, TRUTH_COLOUR
from pipelines.models.thresholds import save_thresholds
from pipelines.report.checks import check_videos
from pipelines.report.pictures import choose_frames
from pipelines.report.run import PictureSource, draw_frames, draw_maps, write_run_report
from tcam.supervision.joint_walk import JointWalk
from tests.helpers.results import write_results, write_run
from tests.helpers.tiny import SIDE, tiny_localizer, whole_frame_truth


def draw(data, records, truth, names=("layercam",)):
    localizers = dict.fromkeys(names, tiny_localizer())
    thresholds = dict.fromkeys(names, 0.5)
    drawn = draw_maps(records, truth, localizers, thresholds, class_names=data.index.class_names, size=(SIDE, SIDE))
    return list(drawn)


def holds(picture: torch.Tensor, colour: tuple[int, int, int]) -> bool:
    return bool((picture == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(dim=0).any())


@pytest.fixture
def source(tiny_data):
    localizers = {"layercam": tiny_localizer(), "tcam": tiny_localizer("decoder")}
    return PictureSource(localizers, tiny_data.index, whole_frame_truth(tiny_data.index), (SIDE, SIDE))


@pytest.fixture
def overlaps(tiny_data):
    videos = [record.video_id for record in tiny_data.index.records[:2]]
    return {name: {video: [0.4, 0.0] for video in videos} for name in ("layercam", "tcam")}


def test_the_frame_comes_first_with_the_true_box_alone_then_each_map_with_the_box_found(tiny_data):
    record = tiny_data.index.records[0]
    (picture,) = draw(tiny_data, [record], whole_frame_truth(tiny_data.index), ("layercam", "tcam"))
    assert picture.caption == f"{record.video_id}, frame 5"
    labels, panels = zip(*picture.panels, strict=True)
    assert labels == (tiny_data.index.class_names[record.label], "layercam", "tcam")
    assert {tuple(panel.shape)[1:] for panel in panels} == {(240, round(240 * record.size[1] / record.size[0]))}
    assert [holds(panel, TRUTH_COLOUR) for panel in panels] == [True, True, True]
    assert [holds(panel, FOUND_COLOUR) for panel in panels] == [False, True, True]


def test_the_middle_annotated_frame_is_drawn_or_else_the_middle_of_the_video(tiny_data):
    record = tiny_data.index.records[0]
    truth = whole_frame_truth(tiny_data.index, frames=(0, 1, 7))
    assert draw(tiny_data, [record], truth)[0].caption == f"{record.video_id}, frame 1"
    (picture,) = draw(tiny_data, [record], [])
    assert picture.caption == f"{record.video_id}, frame {record.num_frames // 2}"


def test_a_video_that_cannot_be_read_is_left_out(tiny_data, tmp_path):
    first, second, *_ = tiny_data.index.records
    (tmp_path / "broken.mp4").write_text("no video")
    broken = dataclasses.replace(first, path=str(tmp_path / "broken.mp4"))
    (picture,) = draw(tiny_data, [broken, second], tiny_data.truth)
    assert picture.caption.startswith(second.video_id)


def test_the_boxes_drawn_are_those_that_were_judged(source, overlaps, tmp_path):
    evaluation = read_evaluation(write_results(tmp_path, overlaps))
    groups = choose_frames(evaluation, each=1)
    (worst,) = draw_frames(groups["Worst"], source)
    (best,) = draw_frames(groups["Best"], source)
    assert [label.split(", ")[-1] for label, _ in worst.panels[1:]] == ["IoU 0.00", "IoU 0.00"]
    assert [holds(panel, FOUND_COLOUR) for _, panel in worst.panels] == [False, False, False]  # nothing was found
    assert [holds(panel, FOUND_COLOUR) for _, panel in best.panels] == [False, True, True]
    panel = best.panels[1][1]
    scale = panel.shape[1] / source.index.records[0].size[0]
    pixel = panel[:, round(40 * scale), round(20 * scale)]  # the judged box begins at x 20 and spans y 20 to 70
    assert tuple(pixel.tolist()) == FOUND_COLOUR


def test_a_run_has_one_page_with_everything(source, overlaps, tmp_path):
    run = write_run(tmp_path / "tiny-001", overlaps)
    page = write_run_report(run, read_evaluation(run / "evaluation"), source)
    assert page == run / "report" / "report.html"
    text = page.read_text()
    sections = ("headline", "classes", "metrics", "thresholds", "frames", "gallery", "training", "videos", "details")
    assert [name for name in sections if f'id="{name}"' not in text] == []
    videos = len(source.index.records)
    assert text.count("<img") == 4 * 3 + videos  # two videos of two frames, and the contact sheet
    assert "backbone: test_resnet" in text
    assert "val_corloc" in text
    assert 'class="published"' not in text


def test_an_evaluation_without_scores_still_shows_frames_and_training(source, tmp_path):
    run = write_run(tmp_path / "tiny-001")
    thresholds = dict.fromkeys(source.localizers, 0.5)
    output = tmp_path / "elsewhere"
    page = write_run_report(run, Evaluation("test", (), ()), source, output=output, thresholds=thresholds)
    text = page.read_text()
    assert page.parent == output
    assert "Nothing was scored" in text
    assert 'id="gallery"' in text
    assert 'id="training"' in text


@pytest.mark.slow
def test_a_run_without_boxes_says_what_its_boxes_rest_on(source, tmp_path):
    run = write_run(tmp_path / "tiny-001")
    source = dataclasses.replace(source, truth=())
    chosen = choose_by_tags(source.localizers, source.index, walk=JointWalk(steps=5), size=source.size, grid=(0.3, 0.5))
    why, stored = dataclasses.asdict(chosen), run / "evaluation" / "thresholds.json"
    save_thresholds(stored, chosen.thresholds, chosen_on="tags", presence={}, tags=why)
    page = write_run_report(run, Evaluation("test", (), ()), source, thresholds=chosen.thresholds)
    text = " ".join(page.read_text().split())
    parts = dict(re.findall(r'<section id="([a-z-]+)">(.*?)</section>', text))
    share = next(found for name, found in chosen.by_localizer.items() if name == "tcam").share
    assert (
        f"cover {100 * share:.1f} % of the frame on average: at threshold {chosen.thresholds['tcam']:g}"
        in parts["tag-choice"]
    )
    assert parts["tag-choice"].count("<circle") == 1
    for record in source.index.records:
        assert f'alt="{record.video_id}, frame ' in parts["sheet"]
        assert f"<tr><td>{record.video_id}</td>" in parts["steadiness"]
    checks = check_videos(
        "tcam", source.localizers["tcam"], source.index, threshold=chosen.thresholds["tcam"], size=source.size
    )
    shown = re.findall(r'alt="(\S+), frame', parts["sheet"])
    assert shown == [check.video for check in checks.videos]
    differing = {check.video for check in checks.videos if not check.agrees}
    assert set(re.findall(r"<tr><td>(\S+)</td>", parts["tags"])) == differing != set()
    assert "no true box was read" in text
    assert list(parts).index("sheet") < list(parts).index("gallery")
