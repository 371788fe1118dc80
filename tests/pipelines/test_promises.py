"""Promises that only a process of its own can break: a killed prediction, a decode bomb, memory of a long video."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from tests.helpers.python_processes import tcam_process
from tests.helpers.tiny import files_of, read_errors

pytestmark = pytest.mark.slow

SLOW_READER = """
import sys, time
from tcam.video.reader import stream_frames
for number, frame in enumerate(stream_frames(sys.argv[1], size=(224, 224), keep_original=True)):
    if number < 20:
        time.sleep(0.1)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(number + 1, int(status["VmHWM"].split()[0]) // 1024)  # the peak that getrusage gives may be the parent's
"""


def repeat(source: Path, target: Path, times: int) -> Path:
    """Write the packets of a video again and again: a long file in no time."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        packets = [packet for packet in reading.demux(video=0) if packet.size]
        stream = writing.add_stream_from_template(reading.streams.video[0])
        step = packets[1].dts - packets[0].dts
        for number in range(times * len(packets)):
            model = packets[number % len(packets)]
            packet = av.Packet(bytes(model))
            packet.stream, packet.time_base, packet.is_keyframe = stream, model.time_base, model.is_keyframe
            packet.pts = packet.dts = number * step
            writing.mux(packet)
    return target


@pytest.fixture
def still(tmp_path):
    """Give a function that writes a large black video of few bytes, 100 frames and those again and again."""

    def write(name, *, size, times):
        short = tmp_path / "short.mp4"
        with av.open(str(short), "w") as container:
            stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "100"})
            stream.height, stream.width = size
            for _ in range(100):
                frame = av.VideoFrame(size[1], size[0], "yuv420p")
                for plane, level in zip(frame.planes, (16, 128, 128), strict=True):
                    plane.update(bytes([level]) * plane.buffer_size)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return repeat(short, tmp_path / name, times)

    return write


def test_what_a_killed_prediction_has_published_is_whole_and_the_rest_is_made_by_the_next(tcam, tiny_run, tmp_path):
    calls = [
        "predict",
        tiny_run.folder,
        "--source",
        tiny_run.videos / "fish",
        "--device",
        "cpu",
        "--workers",
        "0",
        "-o",
    ]
    assert tcam(*calls, f"{tmp_path / 'peace'}/").code == 0
    peace, boxes = files_of(tmp_path / "peace"), tmp_path / "killed"
    with tcam_process(*calls, f"{boxes}/", stdout=None, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(boxes.glob("*.meta.json")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    published = {path.name: path.read_bytes() for path in boxes.glob("fish*") if not path.name.startswith(".")}
    assert published
    assert published.items() <= peace.items()
    done = sum(name.endswith(".meta.json") for name in published)
    found = tcam(*calls, f"{boxes}/")
    assert f"{done} of 4 videos are done already and skipped" in found.err
    assert files_of(boxes) == peace


def test_a_decode_bomb_ends_within_its_time_and_the_others_go_on(tcam, videos, tmp_path, still):
    bomb = still("bomb.mp4", size=(2160, 3840), times=200)  # 20,000 frames: half a terabyte of pixels
    assert bomb.stat().st_size < 2**24
    name = f"fish/{bomb.name}"
    bomb.rename(videos / name)
    # A second more for each 200 kB is allowed to every file.
    found = tcam("prepare", videos, "-o", tmp_path / "out", "--workers", "2", "--set", "data.time_limit_s=2")
    assert found.code == 4
    errors = read_errors(tmp_path / "out" / "errors.csv")
    assert set(errors) == {name}
    assert "longer than its time limit" in errors[name]


def test_a_long_video_with_a_slow_reader_takes_little_memory(still):
    video = still("long.mp4", size=(1080, 1920), times=6)
    command = [sys.executable, "-c", SLOW_READER, str(video)]
    frames, peak_mb = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert frames == 600
    assert peak_mb < 1500
