import pytest

from tcam.errors import VideoError, one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (VideoError("a.mp4: no\n  frames"), "a.mp4: no frames"),
        (VideoError("x" * 1000), "x" * 300),
        (KeyError("state"), "KeyError: 'state'"),
        (RuntimeError("Error(s):\n\tsize mismatch" + "!" * 1000), f"RuntimeError: Error(s): size mismatch{'!' * 263}"),
        (TimeoutError(), "TimeoutError: no message"),
    ],
)
def test_an_error_becomes_one_short_line(error, line):
    assert one_line(error) == line
