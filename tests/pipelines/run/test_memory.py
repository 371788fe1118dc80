import resource
import sys

import pytest
import torch

from pipelines.run.memory import keep_freed_memory, resident_bytes, return_freed_memory

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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_kept_can_be_returned():
    keep_freed_memory()
    pieces = [torch.ones(MB // 4) for _ in range(512)]
    last = torch.ones(MB // 4)  # above them: nothing is freed by itself
    full = resident_bytes()
    del pieces
    assert resident_bytes() > full - 64 * MB
    return_freed_memory()
    assert resident_bytes() < full - 448 * MB
    assert last.sum() == MB // 4
