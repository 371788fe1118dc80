"""The picture of the README: panels of frames and maps made by hand, and the whole script on a tiny run."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.inference.overlay import FOUND_COLOUR
from tcam.types import Box
from tests.pipelines.conftest import tiny_run  # noqa: F401 (a fixture)

SCRIPT = Path(__file__).parents[2] / "tools" / "pictures.py"


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("pictures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def solid(shade, size=(80, 40)):
    return Image.new("RGB", size, (shade, shade, shade))


def test_panels_lie_in_rows_with_transparent_gaps(pictures):
    gap = pictures.GAP
    picture = np.asarray(pictures.tile([[solid(10), solid(20)], [solid(30), solid(40)]]))
    assert picture.shape == (40 + gap + 40, 80 + gap + 80, 4)
    assert set(picture[:40, :80, 0].flat) == {10}
    assert set(picture[:40, 80 + gap :, 0].flat) == {20}
    assert set(picture[40 + gap :, 80 + gap :, 0].flat) == {40}
    assert set(picture[40 : 40 + gap, :, 3].flat) == {0}
    assert set(picture[:, 80 : 80 + gap, 3].flat) == {0}


def test_a_box_lies_where_it_is_in_the_frame(pictures):
    frame = np.full((3, 60, 120), 100, np.uint8)
    panel = np.asarray(pictures.draw_panel(frame, "box", Box(60, 30, 90, 45), width=240))
    assert panel.shape == (120, 240, 3)
    rows, columns = np.nonzero((panel == FOUND_COLOUR).all(axis=2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (120, 60, 180, 90)


@pytest.mark.slow
def test_a_run_is_drawn_and_a_large_file_is_not_left(pictures, tiny_run, tmp_path, monkeypatch):  # noqa: F811
    video, target = next(tiny_run.videos.rglob("*.mp4")), tmp_path / "hero.webp"
    words = [str(SCRIPT), str(tiny_run.folder), "--source", str(video), "--frames", "0", "3", "-o", str(target)]
    monkeypatch.setattr(sys, "argv", [*words, "--width", "96"])
    pictures.main()
    with Image.open(target) as picture:
        assert picture.width == 4 * 96 + 3 * pictures.GAP
        assert picture.mode == "RGBA"
    before = target.read_bytes()
    monkeypatch.setattr(pictures, "MOST_BYTES", 1000)
    with pytest.raises(SystemExit, match="expected at most 1,000"):
        pictures.main()
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]
