"""Digests of outputs: what they see, and what they do not depend on."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from tests.helpers.encoded import encode

ROWS = [{"video": "a.mp4", "frame": 0, "x0": 1.5}, {"video": "a.mp4", "frame": 1, "x0": None}]


def write_outputs(folder):
    (folder / "runs" / "cams").mkdir(parents=True)
    np.save(folder / "runs" / "cams" / "0.npy", np.arange(6, dtype=np.float16))
    pd.DataFrame(ROWS).to_csv(folder / "boxes.csv", index=False)
    pd.DataFrame(ROWS).to_parquet(folder / "boxes.parquet")
    lines = [{"frame": 0, "box": [1, 2, 3, 4], "lag_ms": 3.25}, {"frame": 1, "box": None, "lag_ms": 0.5}]
    (folder / "stream.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {"rows": [{"method": "tcam", "macro": 50.0}], "versions": {"torch": "2"}, "file": f"{folder}/a.mp4"}
    (folder / "results.json").write_text(json.dumps(results))
    save_file({"weight": np.ones(3, dtype=np.float32)}, folder / "last.safetensors", {"epoch": "1"})
    encode(folder / "overlay.mp4", frames=3)
    return folder


def test_the_same_content_elsewhere_has_the_same_digests(bench, tmp_path):
    first, second = (bench.digest_folder(write_outputs(tmp_path / name)) for name in ("one", "another"))
    assert first == second
    assert first["boxes.csv: rows"] == "2"
    assert first["results.json: rows[tcam].macro"] == "50.0"
    assert first["results.json: file"] == '"WORK/a.mp4"'
    assert first["overlay.mp4: frames"] == "3"
    assert "stream.jsonl: box[0]" in first
    assert not [name for name in first if "lag_ms" in name or "versions" in name]


@pytest.mark.parametrize(
    ("spoil", "entry"),
    [
        (lambda folder: np.save(folder / "runs" / "cams" / "0.npy", np.ones(6, dtype=np.float16)), "runs/cams/*.npy"),
        (lambda folder: pd.DataFrame(ROWS).assign(x0=2.5).to_csv(folder / "boxes.csv", index=False), "boxes.csv: x0"),
        (lambda folder: pd.DataFrame(ROWS).assign(x0=2.5).to_parquet(folder / "boxes.parquet"), "boxes.parquet: x0"),
        (
            lambda folder: save_file(
                {"weight": np.zeros(3, dtype=np.float32)}, folder / "last.safetensors", {"epoch": "1"}
            ),
            "last.safetensors: tensors",
        ),
        (lambda folder: encode(folder / "overlay.mp4", frames=3, size=(48, 64)), "overlay.mp4: pixels"),
    ],
)
def test_each_kind_of_content_is_seen(bench, tmp_path, spoil, entry):
    folder = write_outputs(tmp_path / "work")
    before = bench.digest_folder(folder)
    (folder / "overlay.mp4").unlink() if entry.startswith("overlay") else None
    spoil(folder)
    after = bench.digest_folder(folder)
    assert {name for name in before if before[name] != after[name]} == {entry}


def test_differences_are_told_line_by_line(bench):
    digest = bench.digest([1])
    old = {"made_with": {"torch": "2"}, "digests": {"a: macro": "50.0", "b: box[0]": digest, "c": "1"}}
    new = {"made_with": {"torch": "3"}, "digests": {"a: macro": "40.0", "b: x0": digest, "c": "1"}}
    assert list(bench.compare(old, old)) == []
    assert list(bench.compare(old, new)) == [
        "made with another torch: 2 -> 3",
        "changed: a: macro: 50.0 -> 40.0",
        f"gone: b: box[0] = {digest[:12]}...",
        f"new: b: x0 = {digest[:12]}... (the content of b: box[0])",
    ]
