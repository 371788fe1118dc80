import torch

from pipelines.parallel.pool import one_thread


def test_one_thread_is_left_as_it_was_entered():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
