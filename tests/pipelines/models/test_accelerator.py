"""A step of training and of localizing on a CUDA device that need not be there.

torch's fake tensors follow shapes and devices, without numbers: a tensor left on the wrong device fails, and so does a
look at a number, which would make the host wait for the device.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily

from pipelines.config.methods import METHODS
from pipelines.config.schema import RunConfig
from pipelines.models.device import Compute
from pipelines.models.localizer import NetworkLocalizer, build_network
from tcam.supervision.crf import colour_bins, colour_grid
from tcam.types import IGNORE, ClipBatch, PixelLabels

CUDA = torch.device("cuda")


@pytest.fixture
def fake(monkeypatch):
    mode = FakeTensorMode()

    def from_cpu(function):  # what is computed once on the CPU, from numbers
        def wrapped(*arguments):
            with unset_fake_temporarily():
                made = function(*arguments[:-1], torch.device("cpu"))
            moved = [mode.from_tensor(one).to(arguments[-1]) for one in (made if isinstance(made, tuple) else [made])]
            return tuple(moved) if isinstance(made, tuple) else moved[0]

        return wrapped

    monkeypatch.setattr(colour_bins, "level_vectors", from_cpu(colour_bins.level_vectors))
    monkeypatch.setattr(colour_grid, "position_terms", from_cpu(colour_grid.position_terms))
    _forget()
    with mode:
        yield mode
    _forget()


def _forget():
    """Tensors of one test are nothing for another."""
    for function in vars(colour_bins).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def _config(method):
    return RunConfig.model_validate({"method": method, "model": {"backbone": "test_resnet", "weights": "random"}})


def _network(config, fake):
    with unset_fake_temporarily():
        network = build_network(config.model, 5, decoder=True, seed=0)
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            moved = {name: fake.from_tensor(tensor).to(CUDA) for name, tensor in tensors.items() if tensor is not None}
            tensors.update(moved)
    return network


def _frames():
    return torch.zeros(2, 3, 3, 64, 64, dtype=torch.uint8, device=CUDA)


def test_a_look_at_a_number_would_be_noticed(fake):
    with pytest.raises(DataDependentOutputException):
        _frames().float().sum().item()
    with pytest.raises(RuntimeError, match="device"):
        _frames() + torch.zeros(2, 3, 3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tcam", "colocam", "fcam", "pixelcam", "maxmin"])
def test_the_loss_of_a_step_stays_on_the_device(fake, method):
    config = _config(method)
    network, frames = _network(config, fake), _frames()
    labels = torch.full((6, 64, 64), IGNORE, dtype=torch.uint8, device=CUDA)
    index, label = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64, device=CUDA)
    losses = METHODS[config.method].objective(config.localizer, network.score_masked)(
        network(frames.flatten(0, 1)),
        ClipBatch(frames, None, index, label, ("a", "b")),
        PixelLabels(labels),
        barrier_t=1.0,
    )
    assert losses.terms
    assert losses.total.device.type == "cuda"


def test_seeds_are_drawn_on_the_device(fake):
    drawn = _config("tcam").localizer.seeds.sampler()(torch.rand(6, 64, 64, device=CUDA), torch.Generator())
    assert drawn.labels.device.type == "cuda"


@pytest.mark.parametrize("method", ["decoder", "cam", "layercam", "gradcam++"])
def test_maps_are_made_on_the_device(fake, method):
    network = _network(_config("tcam"), fake).eval()
    found = NetworkLocalizer(network, method, Compute(CUDA, torch.float32))(_frames().flatten(0, 1))
    assert found.maps.shape == (6, 64, 64)
    assert found.maps.device.type == found.probabilities.device.type == "cuda"
