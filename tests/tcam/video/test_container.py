import re

import pytest

from tcam.errors import MissingPartError, VideoError
from tcam.video.container import naming_faults, open_container
from tests.helpers.encoded import encode


@pytest.mark.parametrize("fault", [ZeroDivisionError("division by zero"), ValueError("29 is not a valid Type")])
def test_whatever_goes_wrong_with_an_open_file_is_one_line_about_it(tmp_path, fault):
    path = encode(tmp_path / "a.mp4", frames=3)
    said = re.escape(f"{path}: cannot be read ({type(fault).__name__}: {fault}); convert or remove the file")
    with pytest.raises(VideoError, match=rf"^{said}$"), open_container(path):
        raise fault


def test_an_error_that_is_said_already_and_an_interruption_pass():
    for passing in (VideoError("a.mp4: empty"), MissingPartError("no PyAV"), KeyboardInterrupt()):
        with pytest.raises(type(passing)) as caught, naming_faults("a.mp4"):
            raise passing
        assert caught.value is passing
