from pipelines.data.failures import VideoFailure, write_failures


def test_failures_are_rows_of_video_and_reason(tmp_path):
    path = tmp_path / "errors.csv"
    write_failures([VideoFailure("a/x.mp4", 'broken, "here"', "a"), VideoFailure("y.mp4", "empty")], path)
    assert path.read_text() == 'video,reason\na/x.mp4,"broken, ""here"""\ny.mp4,empty\n'


def test_without_failures_the_header_stands_alone_and_older_rows_are_gone(tmp_path):
    path = tmp_path / "errors.csv"
    write_failures([VideoFailure("a", "b")], path)
    write_failures([], path)
    assert path.read_text() == "video,reason\n"
