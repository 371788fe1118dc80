from dataclasses import replace

import pytest
import torch

from pipelines.models.device import Compute
from tcam.errors import ForkError
from tests.helpers.other_processes import check_fork
from tests.helpers.tiny import tiny_localizer
from tests.pipelines.streaming.test_localizer import stream_localizer


@pytest.mark.slow
@pytest.mark.parametrize("method", ["decoder", "scorecam"])
def test_a_localizer_works_in_a_forked_child_as_in_its_parent(method):
    check_fork(stream_localizer(tiny_localizer(method).pack().unpack()))


def test_a_localizer_on_a_gpu_says_that_it_does_not_survive_a_fork():
    localizer = replace(tiny_localizer(), compute=Compute(torch.device("cuda"), torch.float32))
    with pytest.raises(ForkError, match=r"forked from one that had used a GPU: start the process by multiprocessing"):
        localizer.after_fork()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Unable to handle autograd's threading in combination with fork-based multiprocessing.", "from gradients"),
        ("Cannot re-initialize CUDA in forked subprocess.", "used a GPU"),
    ],
)
def test_what_pytorch_says_of_a_fork_becomes_one_line(said, found):
    def complain(_maps, _frames):  # what PyTorch does in such a child, which takes a GPU
        raise RuntimeError(said)

    localizer = replace(tiny_localizer(), refine=complain)
    with pytest.raises(ForkError, match=rf"cannot work in a process forked from one that had .*{found}"):
        localizer.find(torch.zeros(1, 3, 64, 64, dtype=torch.uint8).numpy(), None)


def test_other_errors_of_pytorch_stay_what_they_are():
    def fail(_maps, _frames):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        replace(tiny_localizer(), refine=fail).find(torch.zeros(1, 3, 64, 64, dtype=torch.uint8).numpy(), None)
