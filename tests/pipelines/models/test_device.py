import pytest

from pipelines.models.device import choose_compute
from tcam.errors import ConfigError


def test_a_device_that_is_not_here_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"no device 'cuda:99' here: --device takes auto, cpu"):
        choose_compute("cuda:99", "auto")
