import csv
import os
import random
import shutil

import pytest
from PIL import Image

from tcam.errors import VideoError
from tcam.video.probe import probe_video
from tests.helpers.encoded import encode


def test_an_ordinary_file_is_described_fully(tmp_path):
    probe = probe_video(encode(tmp_path / "a.mp4"))
    assert (probe.num_frames, probe.size, probe.fps, probe.rotation) == (30, (64, 96), 24.0, 0)
    assert (probe.variable_rate, probe.codec, probe.lost_frames, probe.warning) == (False, "h264", 0, None)
    assert probe.duration_s == pytest.approx(30 / 24)
    assert probe.decoder == "pyav"


def test_a_variable_rate_is_noticed_and_a_coarse_clock_is_not(tmp_path):
    uneven = encode(tmp_path / "v.mp4", times=[10 * i + (i % 3) * 4 for i in range(30)])
    assert probe_video(uneven).variable_rate
    assert not probe_video(encode(tmp_path / "millisecond_clock.mkv")).variable_rate


def test_a_turned_file_has_its_display_size(tmp_path):
    assert probe_video(encode(tmp_path / "t.mp4", rotation=-90)).size == (96, 64)


def test_a_file_cut_short_is_used_and_flagged(tmp_path):
    path = encode(tmp_path / "a.mkv", frames=60, options={"g": "10"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    probe = probe_video(path)
    assert 0 < probe.num_frames < 60
    assert probe.lost_frames == pytest.approx(60 - probe.num_frames, abs=2)
    assert probe.warning is not None
    assert "lost" in probe.warning


def test_a_stream_with_a_spoilt_middle_is_flagged(tmp_path):
    path = encode(tmp_path / "a.ts", frames=48, options={"g": "12"})
    content = bytearray(path.read_bytes())
    content[20000:26000] = random.Random(0).randbytes(6000)
    path.write_bytes(bytes(content))
    probe = probe_video(path)
    assert probe.num_frames < 48
    assert probe.lost_frames >= 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", r"empty \(0 bytes\)"),
        ("text.mp4", b"not a video\n" * 40, "not a readable video"),
        ("noise.mp4", random.Random(1).randbytes(40_000), "not a readable video"),
        ("half_header.mp4", b"\0\0\0\x20ftypisom" + bytes(40), "not a readable video|no video stream"),
        ("a\nb\x1b[31m.mp4", b"text", "not a readable video"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoError, match=message) as caught:
        probe_video(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300


def test_a_long_path_still_gives_a_short_message(tmp_path):
    folder = tmp_path.joinpath(*["d" * 200] * 3)
    folder.mkdir(parents=True)
    (folder / "x.mp4").write_text("no")
    with pytest.raises(VideoError, match=r"^\.\.\..*x\.mp4: not a readable video") as caught:
        probe_video(folder / "x.mp4")
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    "text",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"],
)
def test_a_playlist_under_a_video_name_opens_nothing_else(tmp_path, text):
    other = encode(tmp_path / "other.ts")
    path = tmp_path / "list.mp4"
    path.write_text(text.format(other))
    with pytest.raises(VideoError, match="not a readable video"):
        probe_video(path)


def test_a_pipe_a_folder_and_a_missing_file_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    for name, message in (
        ("fifo.mp4", "expected a regular file"),
        ("folder.mp4", "a folder without images"),
        ("dangling.mp4", "No such file"),
    ):
        with pytest.raises(VideoError, match=message):
            probe_video(tmp_path / name)


def test_a_frame_folder_is_a_video(tmp_path):
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number:08d}.jpg")
    probe = probe_video(tmp_path)
    assert (probe.num_frames, probe.size, probe.decoder) == (3, (30, 40), "frames")


def test_a_frame_folder_with_a_broken_image_names_it(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:400])
    with pytest.raises(VideoError, match=r"2\.jpg: not a readable image"):
        probe_video(tmp_path)


def test_a_file_name_that_looks_like_a_protocol_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(encode(tmp_path / "a.mp4"), tmp_path / "concat:a.mp4")
    assert probe_video(tmp_path.relative_to(tmp_path) / "concat:a.mp4").num_frames == 30


@pytest.mark.slow
@pytest.mark.real
def test_the_real_clips_have_the_frames_and_sizes_of_their_table(shared_data):
    root = shared_data / "clips"
    with (root / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 55
    for row in rows:
        probe = probe_video(root / row["video"])
        expected = (int(row["n_frames"]), (int(row["height"]), int(row["width"])), 24.0, 0, None)
        assert (probe.num_frames, probe.size, probe.fps, probe.lost_frames, probe.warning) == expected, row["video"]
