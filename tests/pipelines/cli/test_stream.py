import json
import shutil
import signal
import socket

import av
import pytest
import torch

from pipelines.inference.rows import COLUMNS
from tests.helpers.encoded import encode
from tests.helpers.python_processes import tcam_process
from tests.helpers.sources import serve_frames
from tests.helpers.synthetic import TINY_FRAMES


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def box_of(row):
    return None if row["x0"] is None else [row[edge] for edge in ("x0", "y0", "x1", "y1")]


def encode_odd(folder):
    """Files whose boxes are easily put in the wrong place: (path, display size)."""
    times = [0, 10, 15, 40, 41, 60, 90, 91, 92, 120, 150]
    return {
        "rotated": encode(folder / "rotated.mp4", frames=11, size=(64, 96), rotation=90),
        "uneven": encode(folder / "uneven.mkv", frames=11, times=times),
        "odd": encode(folder / "odd.mkv", frames=11, size=(63, 97), codec="ffv1", pix_fmt="yuv444p"),
        "ts": encode(folder / "plain.ts", frames=11),
    }


@pytest.mark.slow
def test_boxes_of_a_file_are_those_of_predict(tcam, tiny_run, tmp_path):
    for path in encode_odd(tmp_path).values():
        common = (tiny_run.folder, "--source", path, "--device", "cpu", "-q")
        predicted = tcam("predict", *common, "--track")
        streamed = tcam("stream", *common)
        assert (predicted.code, streamed.code) == (0, 0), streamed.err
        rows, (*found, last) = lines_of(predicted.out), lines_of(streamed.out)
        assert last == {"end": "source ended", "frames": 11, "dropped": 0, "reconnects": 0}
        for row, line in zip(rows, found, strict=True):
            assert tuple(row) == COLUMNS
            assert line == {**row, "raw_box": box_of(row), "lag_ms": line["lag_ms"], "dropped": 0}
        assert any(box_of(line) for line in found)


@pytest.mark.slow
def test_boxes_are_the_same_bytes_whatever_the_threads(tcam, tiny_run, tmp_path):
    source = encode(tmp_path / "long.mp4", frames=45)
    rows = lines_of(tcam("predict", tiny_run.folder, "--source", source, "--workers", "0").out)
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            *found, last = lines_of(tcam("stream", tiny_run.folder, "--source", source, "--device", "cpu").out)
        finally:
            torch.set_num_threads(before)
        assert last["frames"] == len(rows) == 45
        assert list(map(box_of, found)) == list(map(box_of, rows))
        assert [(line["class_score"], line["score"]) for line in found] == [
            (row["class_score"], row["score"]) for row in rows
        ]


def test_lines_and_the_overlay_video_go_where_they_are_asked_to(tcam, tiny_run, tmp_path):
    source = tiny_run.videos / "fish" / "fish-03.mp4"
    target, video = tmp_path / "out" / "boxes.jsonl", tmp_path / "seen" / "fish.mp4"
    found = tcam("stream", tiny_run.folder, "--source", source, "-o", target, "--save-video", video, "--device", "cpu")
    assert (found.code, found.out) == (0, "")
    assert f"{TINY_FRAMES} frames, " in found.err
    assert len(lines_of(target.read_text())) == TINY_FRAMES + 1
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == TINY_FRAMES


def test_every_third_frame(tcam, tiny_run):
    source = tiny_run.videos / "fish" / "fish-03.mp4"
    found = tcam("stream", tiny_run.folder, "--source", source, "--drop", "every:3", "--device", "cpu", "-q")
    *rows, last = lines_of(found.out)
    assert [(row["frame"], row["dropped"]) for row in rows] == [(0, 0), (3, 2), (6, 4)]
    assert last["dropped"] == TINY_FRAMES - 3


def test_frames_of_an_overlay_video_are_shown_at_their_times(tcam, tiny_run, tmp_path):
    source = encode(tmp_path / "uneven.mkv", frames=6, times=[0, 240, 250, 260, 480, 500])
    flags = ("--source", source, "--save-video", tmp_path / "seen.mp4", "--device", "cpu", "-q")
    assert tcam("stream", tiny_run.folder, *flags).code == 0
    with av.open(str(tmp_path / "seen.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([0, 1, 250 / 240, 260 / 240, 2, 500 / 240], abs=2e-3)


def test_half_precision_finds_about_the_same(tcam, tiny_run):
    source = tiny_run.videos / "fish" / "fish-00.mp4"
    full, half = (
        [
            json.loads(line)
            for line in tcam("stream", tiny_run.folder, "--source", source, "--device", "cpu", *more).out.splitlines()
        ]
        for more in ((), ("--half",))
    )
    scores = [[row["class_score"] for row in rows[:-1]] for rows in (full, half)]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


@pytest.mark.slow
def test_a_compiled_network_finds_about_the_same(tcam, tiny_run, tmp_path):
    source = encode(tmp_path / "short.mp4", frames=11)  # the last batch is not full
    flags = ("stream", tiny_run.folder, "--source", source, "--device", "cpu")
    (*plain, last), compiled = lines_of(tcam(*flags).out), tcam(*flags, "--compile")
    if compiled.code == 5:
        assert "torch.compile does not work here" in compiled.err
        pytest.skip("no C++ compiler here")
    assert compiled.code == 0
    (*found, end), names = lines_of(compiled.out), ("frame", "time_s", "class")
    assert end == last
    assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in plain]
    assert [row["class_score"] for row in found] == pytest.approx([row["class_score"] for row in plain], abs=1e-4)


@pytest.mark.parametrize(
    ("drop", "expected"), [((), (8, "each")), (("--drop", "every:2"), (8, "each")), (("--drop", "latest"), (1, "all"))]
)
def test_a_network_is_compiled_for_as_many_frames_as_it_will_see(drop, expected, tcam, tiny_run, monkeypatch):
    asked = []

    def leave_it(localizer, size, *, batch, threads):
        asked.append((batch, threads))
        return localizer

    monkeypatch.setattr("pipelines.models.compiled.compile_localizer", leave_it)
    source = tiny_run.videos / "fish" / "fish-00.mp4"
    assert tcam("stream", tiny_run.folder, "--source", source, "--compile", *drop).code == 0
    assert asked == [expected]


@pytest.mark.slow
def test_without_a_compiler_nothing_is_compiled(tcam, tiny_run, monkeypatch, tmp_path):
    torch.compiler.reset()  # what another test compiled in this process
    inductor = pytest.importorskip("torch._inductor.config")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    with inductor.patch({"cpp.cxx": ("/nonexistent/g++",)}):  # monkeypatch would leave no such setting behind
        found = tcam("stream", tiny_run.folder, "--source", tiny_run.videos / "fish" / "fish-00.mp4", "--compile")
    assert (found.code, found.out) == (5, "")
    assert "torch.compile does not work here" in found.err
    assert "C++ compiler" in found.err


def test_raw_boxes_stand_beside_those_followed_over_time(tcam, tiny_run):
    source = tiny_run.videos / "fish" / "fish-03.mp4"
    common = ("stream", tiny_run.folder, "--source", source, "--device", "cpu", "-q")
    plain, smooth = lines_of(tcam(*common).out), lines_of(tcam(*common, "--smooth", "0.2").out)
    absent = lines_of(tcam(*common, "--min-score", "1").out)
    assert [row["raw_box"] for row in smooth[:-1]] == list(map(box_of, plain[:-1]))
    assert [row["raw_box"] for row in absent[:-1]] == list(map(box_of, plain[:-1]))
    assert {box_of(row) for row in absent[:-1]} == {row["track_id"] for row in absent[:-1]} == {None}
    assert plain[0]["track_id"] == 1


def test_a_run_knows_below_which_score_nothing_seems_to_be_there(tcam, tiny_run, tmp_path):
    source = tiny_run.videos / "fish" / "fish-03.mp4"
    stored = json.loads((tiny_run.folder / "evaluation" / "thresholds.json").read_text())
    assert 0 < stored["presence"]["tcam"] < 1
    flags = ("--source", source, "--device", "cpu", "-q", "--min-score")
    by_number = tcam("stream", tiny_run.folder, *flags, stored["presence"]["tcam"])
    by_itself = tcam("stream", tiny_run.folder, *flags, "auto")
    assert [box_of(row) for row in lines_of(by_itself.out)[:-1]] == [
        box_of(row) for row in lines_of(by_number.out)[:-1]
    ]
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    del stored["presence"]
    (tmp_path / "run" / "evaluation" / "thresholds.json").write_text(json.dumps(stored))
    unknown = tcam("stream", tmp_path / "run", *flags, "auto")
    assert unknown.code == 3
    assert "has no level of presence" in unknown.error


@pytest.mark.slow
def test_a_stream_on_standard_input(tiny_run, tmp_path):
    path = encode(tmp_path / "plain.ts", frames=11)
    with path.open("rb") as stdin:
        flags = ("--source", "-", "--device", "cpu", "-q")
        process = tcam_process("stream", tiny_run.folder, *flags, fresh=True, stdin=stdin)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    *rows, last = lines_of(out)
    assert [row["frame"] for row in rows] == list(range(11))
    assert last == {"end": "source ended", "frames": 11, "dropped": 0, "reconnects": 0}


@pytest.mark.slow
def test_an_mp4_on_standard_input_whose_table_comes_last(tiny_run, tmp_path):
    path = encode(tmp_path / "slow.mp4", frames=200, size=(240, 320))
    with path.open("rb") as stdin:
        process = tcam_process("stream", tiny_run.folder, "--source", "-", "--device", "cpu", stdin=stdin)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert err.splitlines()[-1] == (
        "tcam: error: standard input: cannot be read as it comes (an mp4 whose table of contents comes last); name the "
        "file itself, or write it with 'ffmpeg -i IN -c copy -movflags +faststart OUT.mp4'"
    )
    assert [line["end"] for line in lines_of(out)] == ["error"]


def test_a_camera_that_is_not_there(tcam, tiny_run):
    found = tcam("stream", tiny_run.folder, "--source", "97", "--device", "cpu")
    assert found.code == 3
    assert found.error.startswith("camera 97: cannot be opened (No such file or directory); plug one in, ")


def test_a_refused_connection_tells_no_password(tcam, tiny_run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"rtsp://me:secret@127.0.0.1:{port}/door?key=secret"
    found = tcam("stream", tiny_run.folder, "--source", address, "--device", "cpu")
    assert found.code == 6
    assert found.error == (
        f"rtsp://127.0.0.1:{port}/door: cannot be opened (Connection refused); check the address and that the source "
        "is running"
    )
    assert "secret" not in found.out + found.err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--source", "absent.mp4"), 3, "found no such file or match"),
        (("--source", "{videos}"), 2, "expected one video, found 8; 'tcam predict' takes many"),
        (("--source", "0", "--drop", "every:0"), 2, "--drop every:0: expected latest, none or every:N"),
        (("--source", "{videos}/fish/fish-00.mp4", "-o", "boxes.csv"), 2, "expected a name that ends in .jsonl"),
        (("--source", "{videos}/fish/fish-00.mp4", "--min-score", "half"), 2, "expected a number in 0..1, or auto"),
        (("--source", "{videos}/fish/fish-00.mp4", "--min-score", "1.5"), 2, "expected a number in 0..1, or auto"),
        (("--source", "{videos}/fish/fish-00.mp4", "--budget", "200"), 2, "--budget is for live sources, got the file"),
    ],
)
def test_wrong_flags_are_said_in_one_line(tcam, tiny_run, flags, code, message):
    found = tcam("stream", tiny_run.folder, *(flag.format(videos=tiny_run.videos) for flag in flags), "--device", "cpu")
    assert found.code == code
    assert message in found.error


@pytest.mark.slow
def test_a_source_that_goes_away_is_called_again_and_then_lost(tcam, tiny_run):
    with serve_frames(frames=10, connections=2) as port:
        address = f"tcp://127.0.0.1:{port}"
        found = tcam(
            "stream",
            tiny_run.folder,
            "--source",
            address,
            "--drop",
            "none",
            "--reconnect",
            "1",
            "--device",
            "cpu",
            "-q",
        )
    assert found.code == 6
    *rows, last = lines_of(found.out)
    assert [row["frame"] for row in rows] == list(range(20))
    times = [row["time_s"] for row in rows]
    assert times == sorted(times)
    assert times[10] - times[9] > 0.5  # the second between two attempts has passed
    assert (last["end"], last["frames"], last["reconnects"]) == ("lost", 20, 1)
    assert "; attempts to reach it again: 1; start again when it is back" in found.error


@pytest.mark.slow
def test_ctrl_c_ends_a_stream_with_whole_lines_and_a_playable_video(tiny_run, tmp_path):
    video = tmp_path / "seen.mp4"
    with serve_frames(frames=100_000, fps=30) as port:
        flags = ("--source", f"tcp://127.0.0.1:{port}", "--save-video", video, "--device", "cpu", "-q")
        process = tcam_process("stream", tiny_run.folder, *flags, fresh=True)
        first = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "tcam: interrupted by SIGINT\n"
    *rows, last = lines_of("".join(first) + rest)
    assert (last["end"], last["frames"]) == ("interrupted", len(rows))
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(rows)
