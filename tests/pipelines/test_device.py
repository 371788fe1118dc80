import resource
import sys

import pytest
import torch

from pipelines.device import choose_compute, keep_freed_memory
from tcam.errors import ConfigError

MB = 2**20


def page_faults_of_large_tensors():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(64 * MB // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_serves_the_next_tensors():
    keep_freed_memory()
    page_faults_of_large_tensors()  # the first ones bring the memory in
    assert page_faults_of_large_tensors() < 64 * MB / 4096  # fewer than one tensor's pages for ten tensors


def test_a_device_that_is_not_here_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"no device 'cuda:99' here: --device takes auto, cpu"):
        choose_compute("cuda:99", "auto")
