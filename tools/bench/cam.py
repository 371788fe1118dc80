"""Time to build full-size CAMs, side by side with the grad-cam package (MIT): same network, same frames, same run.

    .venv/bin/pip install grad-cam           # the peer, part of the dev extra
    .venv/bin/python tools/bench/cam.py --videos ../shared/data/clips

The frames are real, 224 x 224, one per video. The network is `--model` at stride 8 with random weights and a random
WGAP head: times do not depend on the values, except that our code skips channels that are 0 everywhere. `whole` is the
time from frames to maps of frame size. `beyond` is the time without the forward pass, which both need. Ours is timed
from the features on, and the forward pass is added for `whole`; the peer is timed as a whole, and the forward pass is
subtracted for `beyond`. `general` is our form by autograd or by ablation, as for a head without a closed form.

Ours and the peer take turns on one thread. Times are processor time per frame, so a busy machine matters little;
medians of rounds. Methods that run the network once for each channel are measured with a smaller network and have their
own numbers of frames and rounds: with a ResNet-50 the peer takes minutes per frame. SS-CAM and IS-CAM are left out:
they are Score-CAM, 35 and 10 times.

The last column is the lowest correlation between the two maps of a frame. It is lower for GradCAM++: the peer adds 1e-6
to a divisor that is as small as squared gradients.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from frames import read_frames
from harness import header, measure, table_head, table_row
from torch import Tensor, nn
from torch.nn import functional

from pipelines.run.memory import keep_freed_memory
from tcam.model.backbone import Backbone
from tcam.model.cam.inputs import CamInputs, normalize_cam
from tcam.model.cam.methods import CAM_METHODS
from tcam.model.heads.pooling import Wgap
from tcam.model.network import FrameCamNet
from tcam.types import FrameOutput

try:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
except ImportError:
    sys.exit("error: the peer is missing: install grad-cam")

PEERS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "ablationcam": "AblationCAM",
    "scorecam": "ScoreCAM",
}
SLOW = ("ablationcam", "scorecam")
UNMEASURED = ("sscam", "iscam", "prior")
CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-model", default="resnet18")
    parser.add_argument("--slow-frames", type=int, default=1)
    parser.add_argument("--slow-rounds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every command of tcam does; the peer gains as well
    print(header(packages=("grad-cam",)), end="\n\n")
    report(
        options.model,
        options.frames,
        options.rounds,
        options.videos,
        [name for name, row in CAM_METHODS.items() if name not in (*SLOW, *UNMEASURED) and not row.of_attention],
    )
    report(options.slow_model, options.slow_frames, options.slow_rounds, options.videos, SLOW)


def report(model: str, count: int, rounds: int, videos: Path, methods: Sequence[str]) -> None:
    """Print one table: milliseconds per frame of every method, ours and the peer's."""
    torch.manual_seed(0)
    backbone = Backbone(model, output_stride=8)
    network = FrameCamNet(backbone, Wgap(backbone.last_channels, CLASSES), None).eval()
    network = network.to(memory_format=torch.channels_last)
    frames = read_frames(videos, count)
    peer_network, output = PeerNetwork(network).eval(), forward(network, frames)
    print(f"**{model}, {count} frame(s) at once, {rounds} rounds**, milliseconds per frame\n")
    columns = ("whole: ours", "peer", "ratio", "beyond: ours", "peer", "ratio", "lowest correlation")
    print(table_head("method", *columns))
    for name in methods:
        cases: dict[str, Callable[[], Tensor]] = {"forward": lambda: forward(network, frames).class_logits}
        forms = ("general", "closed") if CAM_METHODS[name].closed else ("general",)
        for form in forms:
            cases[form] = lambda name=name, form=form: ours(network, frames, output, name=name, form=form)
        if name in PEERS:
            cases["peer"] = lambda name=name: peer(peer_network, network.images(frames), labels_of(output), name)
        timings, maps = measure(cases, rounds, warm_up=int(rounds > 1), clock=time.process_time)
        times = {key: 1000 * seconds / count for key, seconds in timings.medians().items()}
        for form in forms:
            print_row(f"{name}, {form}", form, times, maps)
    print(flush=True)


def print_row(title: str, form: str, times: dict[str, float], maps: dict[str, Tensor]) -> None:
    plain, mine = times["forward"], times[form]
    if "peer" not in times:
        print(table_row(title, f"{plain + mine:.1f}", "-", "-", f"{mine:.2f}", "-", "-", "-"), flush=True)
        return
    theirs = times["peer"]
    pairs = zip(maps[form].flatten(1), maps["peer"].flatten(1), strict=True)
    alike = min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)
    whole = f"{plain + mine:.1f}", f"{theirs:.1f}", f"{theirs / (plain + mine):.1f}x"
    beyond = f"{mine:.2f}", f"{theirs - plain:.1f}", f"{(theirs - plain) / mine:.0f}x"
    print(table_row(title, *whole, *beyond, f"{alike:.5f}"), flush=True)


@torch.inference_mode()
def forward(network: FrameCamNet, frames: Tensor) -> FrameOutput:
    return network(frames)


@torch.inference_mode()
def ours(network: FrameCamNet, frames: Tensor, output: FrameOutput, *, name: str, form: str) -> Tensor:
    """Compute maps ``[N, H, W]`` from the features, by the closed form if ``form`` is "closed"."""
    labels = labels_of(output)
    inputs = CamInputs(
        output.features,
        labels,
        score=network.head,
        head=network.head,
        images=lambda: network.images(frames),
        look=lambda images: network.backbone(images).last,
        generator=torch.Generator().manual_seed(0),
    )
    row = CAM_METHODS[name]
    raw = row.closed(output.features, network.head.weight[labels]) if form == "closed" else row.make(inputs)
    coarse = normalize_cam(raw)
    return functional.interpolate(coarse[:, None], size=frames.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def labels_of(output: FrameOutput) -> Tensor:
    """Return the class with the highest logit: it is above 0, and the peer divides Ablation-CAM by it."""
    return output.class_logits.argmax(dim=1).clone()


class PeerNetwork(nn.Module):
    """The same layers as the peer wants them: normalised images in, class logits out, one module at the features."""

    def __init__(self, network: FrameCamNet) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.layer = nn.Identity()
        self.head = network.head

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits ``[N, K]`` of normalised images ``[N, 3, H, W]``."""
        return self.head(self.layer(self.backbone(images).last))


def peer(network: PeerNetwork, images: Tensor, labels: Tensor, method: str) -> Tensor:
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    quiet = contextlib.redirect_stderr(io.StringIO())  # it draws progress bars
    with quiet, getattr(pytorch_grad_cam, PEERS[method])(model=network, target_layers=[network.layer]) as make:
        return torch.from_numpy(make(images, targets))


if __name__ == "__main__":
    main()
