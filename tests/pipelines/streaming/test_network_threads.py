import threading

import pytest
import torch

from pipelines.streaming.network_threads import network_threads


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("kind", "most", "count", "inside"), [("each", 2, 2, 1), ("each", 8, 3, 1), ("one", 8, 1, 1)])
def test_each_thread_computes_on_one_processor_and_the_caller_keeps_its_own(kind, most, count, inside, three_threads):
    gate = threading.Barrier(count)

    def look(_):
        gate.wait(timeout=60)  # so that every thread takes one
        return threading.current_thread().name, torch.get_num_threads()

    with network_threads(kind, most) as (pool, found):
        assert found == count
        seen = list(pool.map(look, range(count)))
        assert torch.get_num_threads() == 3
    assert len({name for name, _ in seen}) == count
    assert {threads for _, threads in seen} == {inside}
    assert torch.get_num_threads() == 3


def test_an_engine_that_takes_all_processors_has_one_thread(three_threads):
    with network_threads("all", 4) as (pool, found):
        assert found == 1
        assert pool.submit(int).result() == 0
