"""Videos with several tags through the whole pipeline: training, prediction, evaluation, export."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.commands.train import start_or_resume
from pipelines.evaluation.results import read_evaluation
from pipelines.inference.box_table import read_boxes, sidecar
from pipelines.models.checkpoint import load_weights, save_weights
from pipelines.models.localizer import NetworkLocalizer, build_network
from pipelines.models.run import load_run
from pipelines.training.frozen_features import FrozenFeatures
from tcam.types import Box, FrameTruth, VideoIndex
from tests.helpers.scored import score
from tests.helpers.several_tags import write_several_tags
from tests.helpers.tiny import CPU, SETTINGS, TinyRun, record, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.together]

FRAMES = 8


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> TinyRun:
    """A finished TCAM run on videos of which some have two tags; read only."""
    home = tmp_path_factory.mktemp("home")
    videos = write_several_tags(home / "videos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCAM_HOME", str(home))
        result = start_or_resume(videos, overrides=SETTINGS, name="several", runs=home / "runs", quiet=True)
    assert result.failures == 0
    return TinyRun(result.folder, videos, home)


@pytest.fixture
def sure(several, tmp_path):
    """A copy of the run whose classifier finds both tags in every frame, fish a little more probable."""
    folder = shutil.copytree(several.folder, tmp_path / "sure-001")
    path = folder / "localizer" / "best_localization.safetensors"
    network = load_run(folder).network(decoder=True)
    facts = load_weights(network, path)
    with torch.no_grad():
        network.head.linear.weight.zero_()
        network.head.linear.bias.copy_(torch.tensor([2.0, 3.0]))
    save_weights(network, path, facts)
    return folder


def test_every_tag_is_trained_and_its_cams_are_cached(several):
    rows = [json.loads(line) for line in (several.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"classifier", "localizer"} <= {row.get("stage") for row in rows}
    cams = sorted(several.folder.glob("cams/*.npy"))
    assert len(cams) == 4  # a, b, and c for each of its tags
    of_c = [np.load(path) for path in cams[2:]]
    assert of_c[0].shape == of_c[1].shape
    assert not np.array_equal(*of_c)
    network = load_run(several.folder).network(decoder=True)
    assert network.several_tags
    assert network.decoder.head.out_channels == 4


def test_corloc_of_the_baselines_by_hand_counts_frames_and_tags(several):
    found = read_evaluation(several.folder / "evaluation")
    assert found.num_frames == 3  # of 16: the others are not annotated, and none counts
    assert dict(found.frames_per_class) == {"beetle": 1, "fish": 2}
    scores = {item.method: item.result for item in found.scores if item.kind == "baseline"}
    # The fish fills 40 and 24 of 64 rows: IoU 0.625 and 0.375 with the frame. The beetle is the centre box.
    assert dict(scores["full frame"].per_class) == {"beetle": 0.0, "fish": 50.0}
    assert dict(scores["centre box (50 %)"].per_class) == {"beetle": 100.0, "fish": 0.0}
    assert scores["full frame"].micro == pytest.approx(100 / 3)
    assert scores["full frame"].macro == 25.0


class _Halves(torch.nn.Module):
    """A decoder that finds tag 0 in the left half of every frame and tag 1 in the right one."""

    def forward(self, levels, size, labels):
        left = torch.where(torch.arange(size[1]) < size[1] // 2, 5.0, -5.0).expand(len(labels), *size)
        foreground = torch.where((labels == 0)[:, None, None], left, -left)
        return torch.stack([torch.zeros_like(foreground), foreground], dim=1)


def halves() -> NetworkLocalizer:
    network = build_network(tiny_config().model, 2, decoder=True, seed=0, several_tags=True).eval()
    network.decoder = _Halves()
    return NetworkLocalizer(network, "decoder", CPU)


def test_corloc_of_a_localizer_by_hand_is_that_of_each_tag(tiny_data):
    """The same video twice, once for each tag: what is right for one tag is wrong for the other."""
    video = tiny_data.index.of_split("test")[0]
    pair = tuple(
        dataclasses.replace(video, video_id=f"{name}:x.mp4", label=label, also=(1 - label,))
        for label, name in enumerate(tiny_data.index.class_names)
    )
    left, right = Box(0, 0, 32, 64), Box(32, 0, 64, 64)
    truth = (
        FrameTruth("beetle:x.mp4", 0, 0, (left,)),
        FrameTruth("fish:x.mp4", 0, 1, (right,)),
        FrameTruth("fish:x.mp4", 2, 1, (left,)),  # the map of the other tag would be right
        FrameTruth("fish:x.mp4", 3, 1, (right,)),
        FrameTruth("beetle:x.mp4", 4, 0, ()),  # no beetle: counts for presence only
    )
    data = dataclasses.replace(tiny_data, index=VideoIndex(tiny_data.index.class_names, pair))
    scored = score(data, truth, chosen={"tcam": 0.5}, tcam=halves())
    found = scored.evaluators["tcam"].table("validation", 0.5)
    assert found.per_class == {"beetle": 100.0, "fish": pytest.approx(200 / 3)}
    assert found.macro == pytest.approx((100 + 200 / 3) / 2)
    assert found.micro == 75.0
    assert found.num_frames == 4
    # Whichever tag is the more probable one, both are true.
    assert scored.methods["tcam"].at_chosen.compute().top_accuracy[1] == 100.0


def test_predict_writes_a_box_for_each_tag_of_a_frame(sure, several, tcam, tmp_path):
    out = tmp_path / "boxes.csv"
    done = tcam("predict", sure, "--source", several.videos / "e.mp4", "-o", out, "--track")
    assert done.code == 0, done.err
    table = read_boxes(out)
    assert table["frame"].tolist() == [i for i in range(FRAMES) for _ in range(2)]
    assert table["class"].tolist() == ["fish", "beetle"] * FRAMES
    scores = table.groupby("class")["class_score"].first()
    assert scores.to_dict() == pytest.approx({"beetle": 1 / (1 + np.exp(-2)), "fish": 1 / (1 + np.exp(-3))}, abs=1e-5)
    assert table.groupby("track_id")["class"].nunique().eq(1).all()
    about = json.loads(sidecar(out).read_text())
    assert (about["rows"], about["videos"]["e.mp4"]["frames"]) == (2 * FRAMES, FRAMES)
    for name in ("fish", "beetle"):  # each tag's boxes are those that asking for it gives
        single = tmp_path / f"{name}.csv"
        done = tcam("predict", sure, "--source", several.videos / "e.mp4", "-o", single, "--class", name)
        assert done.code == 0, done.err
        asked, found = read_boxes(single), table[table["class"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(asked.drop(columns="track_id"), found.drop(columns="track_id"))


def test_an_unlikely_tag_gets_no_row(sure, several, tcam, tmp_path):
    network, path = load_run(sure).network(decoder=True), sure / "localizer" / "best_localization.safetensors"
    facts = load_weights(network, path)
    with torch.no_grad():
        network.head.linear.bias.copy_(torch.tensor([-1.0, -2.0]))
    save_weights(network, path, facts)
    done = tcam("predict", sure, "--source", several.videos / "e.mp4", "-o", tmp_path / "boxes.csv")
    assert done.code == 0, done.err
    with (tmp_path / "boxes.csv").open() as stream:
        assert [row["class"] for row in csv.DictReader(stream)] == ["beetle"] * FRAMES  # the most probable one


def test_the_rows_are_the_same_from_several_processes(sure, several, tcam, tmp_path):
    for workers in (0, 2):
        options = ("-o", tmp_path / f"{workers}.csv", "--workers", workers)
        assert tcam("predict", sure, "--source", several.videos, *options).code == 0
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_a_drawn_video_shows_the_boxes_of_all_tags(sure, several, tcam, tmp_path):
    options = ("-o", tmp_path / "boxes.csv", "--save-video", tmp_path / "drawn")
    done = tcam("predict", sure, "--source", several.videos / "e.mp4", *options)
    assert done.code == 0, done.err
    assert (tmp_path / "drawn" / "e.mp4").stat().st_size > 0
    assert len(read_boxes(tmp_path / "boxes.csv")) == 2 * FRAMES


def test_maps_that_agree_over_frames_need_a_class(sure, several, tcam, tmp_path):
    options = ("--source", several.videos / "e.mp4", "-o", tmp_path / "boxes.csv", "--refine", "joint")
    done = tcam("predict", sure, *options)
    assert (done.code, "name one with --class" in done.error) == (2, True)
    assert tcam("predict", sure, *options, "--class", "fish").code == 0
    options = ("--source", several.videos / "e.mp4", "-o", tmp_path / "rows.jsonl", "--refine", "joint")
    done = tcam("stream", sure, *options)
    assert (done.code, "name one with --class" in done.error) == (2, True)
    assert tcam("stream", sure, *options, "--class", "fish").code == 0


def test_a_single_box_per_frame_is_that_of_the_most_probable_tag(sure, several, tcam, tmp_path):
    done = tcam("stream", sure, "--source", several.videos / "e.mp4", "-o", tmp_path / "rows.jsonl")
    assert done.code == 0, done.err
    table = read_boxes(tmp_path / "rows.jsonl")
    assert table["class"].tolist() == ["fish"] * FRAMES


def test_an_exported_file_makes_the_same_rows(sure, several, tcam, tmp_path):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "sure.onnx"
    done = tcam("export", sure, "-o", file)
    assert done.code == 0, done.err
    tables = []
    for model in (sure, file):
        out = tmp_path / f"{len(tables)}.csv"
        assert tcam("predict", model, "--source", several.videos / "e.mp4", "-o", out).code == 0
        tables.append(read_boxes(out))
    assert tables[0]["class"].tolist() == tables[1]["class"].tolist() == ["fish", "beetle"] * FRAMES
    np.testing.assert_allclose(tables[0]["score"], tables[1]["score"], atol=1e-3)


def test_other_videos_with_several_tags_are_evaluated_by_tag(several, tcam, tmp_path):
    done = tcam("evaluate", several.folder, "--videos", several.videos, "--split", "all", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert dict(read_evaluation(tmp_path / "out").frames_per_class) == {"beetle": 2, "fish": 3}


def test_a_run_is_resumed_with_all_tags(several, tcam):
    before = {path: path.read_bytes() for path in several.folder.rglob("*.safetensors")}
    done = tcam("train", "--resume", several.folder)
    assert done.code == 0, done.err
    assert {path: path.read_bytes() for path in several.folder.rglob("*.safetensors")} == before


def test_methods_for_one_tag_are_refused_before_training(several, tcam, tmp_path):
    options = [part for setting in (*SETTINGS, "method=pixelcam") for part in ("--set", setting)]
    done = tcam("train", "--videos", several.videos, "--runs", tmp_path / "runs", "--name", "x", *options)
    assert (done.code, "method pixelcam needs one tag per video, and beetle:c.mp4 has several" in done.error) == (
        2,
        True,
    )


def test_the_small_head_learns_several_tags_from_kept_features(several, tmp_path, monkeypatch):
    """The settings of the small recipe: frozen features, a head on two levels, maps that teach the next round."""
    monkeypatch.setenv("TCAM_HOME", str(several.home))
    overrides = (
        *SETTINGS,
        *("input.resize=64", "model.levels_used=null", "model.decoder=levels", "classifier.freeze_backbone=true"),
        *(
            "cam.method=cam",
            "cam.refine=joint",
            "localizer.rounds=2",
            "localizer.frame_choices=4",
            "localizer.frame_limit=1",
        ),
        *("localizer.seeds.weight=0", "localizer.soft.weight=1", "localizer.crf.weight=0", "localizer.size.weight=0"),
        "localizer.temporal.neighbours=0",
    )
    result = start_or_resume(several.videos, overrides=overrides, name="small", runs=tmp_path / "runs", quiet=True)
    second = sorted(result.folder.glob("cams-2/*.npy"))
    assert len(second) == 4
    assert not np.array_equal(*(np.load(path) for path in second[2:]))  # the maps of the two tags of one video
    assert dict(read_evaluation(result.folder / "evaluation").frames_per_class) == {"beetle": 1, "fish": 2}
    kept = FrozenFeatures.of_run(load_run(result.folder))
    names = ("c", "d", "e")
    assert kept.same == {f"{tag}:{name}.mp4": f"beetle:{name}.mp4" for name in names for tag in ("beetle", "fish")}


def test_with_one_tag_each_nothing_of_several_tags_is_stored(tiny_run):
    index = json.loads((tiny_run.folder / "index" / "index.json").read_text())
    assert all("also" not in entry for entry in index["records"])
    network = load_run(tiny_run.folder).network(decoder=True)
    assert not network.several_tags
    assert network.decoder.head.out_channels == 2
    assert record("a", 0).also == ()
