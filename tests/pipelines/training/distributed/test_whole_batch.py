import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.training.distributed.process_group import SINGLE_PROCESS, BatchShard, ProcessGroup
from pipelines.training.distributed.whole_batch import WholeBatch
from tests.helpers.process_groups import in_process_group

pytestmark = pytest.mark.together

FRAMES = (5, 1)
"""Of two batches: one that does not divide evenly, one that is too small for both processes."""


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Dropout2d(0.3), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(64, 3)).double()


def one_step(network: nn.Module, group: ProcessGroup, frames: int) -> dict[str, Tensor]:
    """Do a forward and a backward pass; give the loss, the gradients, the statistics and the next random number."""
    torch.manual_seed(frames)
    images, targets = torch.rand(frames, 3, 6, 6, dtype=torch.float64), torch.rand(frames, 3, dtype=torch.float64)
    shard = group.shard(frames)
    own = slice(shard.first, shard.stop)
    if group.size == 1:
        found = network(images)
    else:
        with WholeBatch(group, shard):
            found = network(images[own])
    loss = functional.mse_loss(found, targets[own], reduction="sum") * shard.counts
    network.zero_grad()
    loss.backward()
    if group.size > 1:
        group.add_gradients(network.parameters())
        group.sum(loss.detach())
    grads = {f"gradient of {name}": parameter.grad.clone() for name, parameter in network.named_parameters()}
    return {"loss": loss.detach().clone(), "luck": torch.rand(3), **grads, **network.state_dict()}


def all_steps(path, group: ProcessGroup = SINGLE_PROCESS) -> None:
    network = small_network()
    steps = [{name: value.clone() for name, value in one_step(network, group, n).items()} for n in FRAMES]
    if group.is_main:
        torch.save(steps, path)


def test_shares_are_consecutive_and_differ_by_one_clip_at_most():
    shards = [ProcessGroup(rank, 3).shard(8) for rank in range(3)]
    assert [(shard.first, shard.stop) for shard in shards] == [(0, 2), (2, 5), (5, 8)]
    assert all(shard.counts and shard.total == 8 for shard in shards)
    assert shards[1].times(4) == BatchShard(8, 20, 32)


def test_a_process_without_a_clip_takes_one_that_does_not_count():
    shards = [ProcessGroup(rank, 3).shard(1) for rank in range(3)]
    assert shards.count(BatchShard(0, 1, 1, counts=False)) == 2
    assert shards.count(BatchShard(0, 1, 1)) == 1


def test_alone_every_batch_is_taken_whole():
    assert SINGLE_PROCESS.shard(5) == BatchShard(0, 5, 5)
    assert not SINGLE_PROCESS.any(True)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Give what two processes and one find in every step."""
    folder = tmp_path_factory.mktemp("group-batch")
    in_process_group(2, folder, all_steps, (folder / "two.pt",))
    with torch.random.fork_rng():
        all_steps(folder / "one.pt")
    return torch.load(folder / "one.pt"), torch.load(folder / "two.pt")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(FRAMES)))
def test_two_processes_find_loss_gradients_statistics_and_luck_of_the_whole_batch(number, steps):
    one, two = (found[number] for found in steps)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-9)
    assert one["gradient of 0.weight"].abs().max() > 1e-4
