import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcam.errors import VideoError
from tcam.video.probe import probe_video
from tcam.video.reader import ClipReader, stream_frames
from tests.helpers.encoded import encode, trim_by_edit_list

SCATTERED = [7, 0, 29, 29, 3, 15, 16, 1, 28]
KINDS = {
    "b_frames.mp4": {"options": {"x264-params": "bframes=3:b-pyramid=normal:keyint=12"}},
    "open_gop.mkv": {"options": {"x264-params": "bframes=3:open-gop=1:keyint=8:scenecut=0"}},
    "intra_refresh.mp4": {"options": {"x264-params": "keyint=10:intra-refresh=1"}},
    "variable.mp4": {"times": [10 * i + (i % 3) * 4 + (i > 20) * 150 for i in range(30)]},
    "transport.ts": {"options": {"g": "6"}},
    "turned.mp4": {"rotation": -90},
    "odd.mkv": {"codec": "ffv1", "size": (63, 95), "pix_fmt": "yuv444p"},
    "ten_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "old.avi": {"codec": "mpeg4"},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_by_index_are_those_in_order_pixel_for_pixel(tmp_path, name):
    path = encode(tmp_path / name, **KINDS[name])
    probe = probe_video(path)
    for size in (probe.size, (40, 56)):
        in_order = np.stack([frame.pixels for frame in stream_frames(path, size=size)])
        assert in_order.shape == (30, 3, *size)
        with ClipReader(path, decoder=probe.decoder, num_frames=30, size=size) as reader:
            for part in (SCATTERED, [20], [2], [29, 28, 27], list(range(30))):
                assert np.array_equal(reader.read(part), in_order[part]), (size, part)


def test_no_two_frames_of_the_test_videos_are_alike(tmp_path):
    frames = [frame.pixels.astype(int) for frame in stream_frames(encode(tmp_path / "a.mp4"), size=(40, 56))]
    assert min(np.abs(a - b).mean() for a, b in pairwise(frames)) > 3


@pytest.mark.parametrize("name", ["turned.mp4", "variable.mp4"])
def test_the_channels_of_a_pixel_stay_together_in_memory(tmp_path, name):
    stacked = np.stack([frame.pixels for frame in stream_frames(encode(tmp_path / name, **KINDS[name]), size=(40, 56))])
    assert stacked.strides[1] == 1  # a network takes them so; a copy to planes would be undone there


def test_a_trimmed_file_is_read_from_its_edit_on(tmp_path):
    path = encode(tmp_path / "trim.mp4", options={"bf": "0"})
    whole = np.stack([frame.pixels for frame in stream_frames(path)])
    trim_by_edit_list(path, start=15360 // 2, duration=500)  # from 0.5 s on, for 0.5 s
    trimmed = np.stack([frame.pixels for frame in stream_frames(path)])
    assert np.array_equal(trimmed, whole[12:24])
    probe = probe_video(path)
    assert (probe.num_frames, probe.lost_frames, probe.warning) == (12, 0, None)
    with ClipReader(path, decoder=probe.decoder, num_frames=12, size=(64, 96)) as reader:
        assert np.array_equal(reader.read([11, 0, 5]), trimmed[[11, 0, 5]])


def test_times_count_from_the_first_frame(tmp_path):
    times = [frame.time_s for frame in stream_frames(encode(tmp_path / "a.ts"))]
    assert times == pytest.approx([i / 24 for i in range(30)], abs=1e-3)


def test_the_original_keeps_the_size_of_the_video(tmp_path):
    frame = next(stream_frames(encode(tmp_path / "a.mp4"), size=(20, 30), keep_original=True))
    assert frame.pixels.shape == (3, 20, 30)
    assert frame.original is not None
    assert frame.original.shape == (3, 64, 96)


def test_a_turned_video_comes_out_upright(tmp_path):
    stored = next(stream_frames(encode(tmp_path / "a.mp4"))).pixels
    for angle, turns in ((-90, -1), (90, 1), (180, 2)):
        path = encode(tmp_path / f"{turns}.mp4", rotation=angle)
        shown = next(stream_frames(path)).pixels
        assert np.array_equal(shown, np.rot90(stored, turns, (1, 2)))
        assert probe_video(path).rotation == -angle % 360


def make_folder(path: Path, count: int) -> Path:
    path.mkdir()
    for number in range(1, count + 1):
        Image.new("RGB", (40, 30), (number * 10, 0, 0)).save(path / f"frame{number}.png")
    return path


def test_a_frame_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = make_folder(tmp_path / "clip", 12)
    levels = [int(frame.pixels[0, 0, 0]) for frame in stream_frames(folder)]
    assert levels == [10 * number for number in range(1, 13)]
    with ClipReader(folder, decoder="frames", num_frames=12, size=(15, 20)) as reader:
        frames = reader.read([11, 0, 11])
    assert frames.shape == (3, 3, 15, 20)
    assert frames[:, 0, 0, 0].tolist() == [120, 10, 120]


def test_indices_outside_the_video_are_the_callers_mistake(tmp_path):
    with ClipReader(encode(tmp_path / "a.mp4"), decoder="pyav", num_frames=30, size=(40, 56)) as reader:
        with pytest.raises(ValueError, match=r"must be in 0\.\.29, got 30"):
            reader.read([0, 30])
        with pytest.raises(ValueError, match="got -1"):
            reader.read([-1])
        assert reader.read([]).shape == (0, 3, 40, 56)


def test_a_file_shorter_than_the_index_says_is_an_error_in_one_line(tmp_path):
    path = encode(tmp_path / "a.mp4")
    for decoder in ("pyav", "decord"):
        with ClipReader(path, decoder=decoder, num_frames=31, size=(40, 56)) as reader:
            with pytest.raises(VideoError, match="frame 30 of 31 is missing; prepare the videos again") as caught:
                reader.read([30])
            assert "\n" not in str(caught.value)


def test_a_reader_travels_to_another_process_unopened(tmp_path):
    path = encode(tmp_path / "a.mp4")
    reader = ClipReader(path, decoder="decord", num_frames=30, size=(40, 56))
    expected = reader.read([3])
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read([3]), expected)
    reader.close()
    assert np.array_equal(reader.read([3]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [("decord",), ("decord", "av")])
def test_reading_names_the_missing_part_or_does_without(tmp_path, missing):
    path = encode(tmp_path / "a.mp4")
    folder = make_folder(tmp_path / "clip", 2)
    code = f"""
import sys
for name in {missing!r}: sys.modules[name] = None
import tcam.video.dataset
from pathlib import Path
from tcam.errors import MissingPartError
from tcam.video.reader import ClipReader
assert ClipReader(Path({str(folder)!r}), decoder="frames", num_frames=2, size=(8, 8)).read([0, 1]).shape[0] == 2
try:
    print(tuple(ClipReader(Path({str(path)!r}), decoder="decord", num_frames=30, size=(40, 56)).read([5, 2]).shape))
except MissingPartError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd(), timeout=60)
    assert run.returncode == 0, run.stderr
    assert ("(2, 3, 40, 56)" if len(missing) == 1 else "needs PyAV") in run.stdout
