"""Our maps beside those of the grad-cam package (MIT), a peer of the development environment alone."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional

from tcam.model.cam.inputs import CamInputs
from tcam.model.cam.methods import make_cam
from tcam.model.heads.pooling import POOLINGS, ClassHead

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(  # not imported here: seconds, in every process that collects the tests
        find_spec("pytorch_grad_cam") is None, reason="the peer is not installed: uv pip install grad-cam"
    ),
]

PEERS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}


class Small(nn.Module):
    """Two convolutions and a head."""

    def __init__(self, head: ClassHead) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.layer = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU())
        self.head = head

    def look(self, images):
        return self.layer(self.before(images))

    def forward(self, images):
        return self.head(self.look(images))


def small(pooling: str, method: str) -> Small:
    """A network whose scores are above zero: the peer divides the weights of Ablation-CAM by them.

    With GradCAM++ the head is steep, as the peer adds a small number to a divisor that is no larger for gentle ones.
    """
    torch.manual_seed(2)
    network = Small(POOLINGS[pooling](16, 3)).eval()
    with torch.no_grad():
        for name, parameter in network.head.named_parameters():
            parameter.mul_(10 if method == "gradcam++" else 1)
            if name in ("linear.bias", "maps.conv.bias"):
                parameter.add_(20)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["wgap", "lse", "attention"])
@pytest.mark.parametrize("method", PEERS)
def test_maps_correlate_with_the_peers(method, pooling):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = small(pooling, method)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images += functional.interpolate(torch.rand(3, 3, 4, 4), size=32, mode="bilinear") * 2
    with torch.no_grad():
        features, logits = network.look(images), network(images)
    labels = logits.argmax(dim=1)
    inputs = CamInputs(features, labels, network.head, network.head, lambda: images, network.look)
    ours = functional.interpolate(make_cam(method, inputs)[:, None], size=(32, 32), mode="bilinear")[:, 0]
    with getattr(pytorch_grad_cam, PEERS[method])(model=network, target_layers=[network.layer]) as peer:
        theirs = torch.from_numpy(peer(images, [ClassifierOutputTarget(int(label)) for label in labels]))
    assert logits.amin() > 0
    for one, other in zip(ours, theirs, strict=True):
        assert float(one.std()) > 0
        assert float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) >= 0.999
