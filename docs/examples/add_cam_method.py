"""Try a CAM method of your own on a finished run: its boxes next to those of the run's method.

python docs/examples/add_cam_method.py runs/pets-001 holiday.mp4

If it is good, docs/extending.md says how `tcam train --set cam.method=NAME` learns it: one file and one line.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipelines.models.run import load_localizers, load_run
from tcam.boxes.extract import extract_box
from tcam.model.cam.inputs import CamInputs, class_gradient, from_head, normalize_cam, weigh
from tcam.model.cam.layer_cam import layer_cam
from tcam.types import FrameGeometry
from tcam.video.reader import stream_frames


def positive_grad_cam(inputs: CamInputs) -> Tensor:
    """Compute maps ``[N, h, w]``: channels weighted by the positive part of their mean gradient."""
    return weigh(inputs.features, class_gradient(inputs).mean(dim=(2, 3)).relu()).relu()


def main() -> None:
    """Read the arguments and print boxes by both methods, at the same map threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("video", type=Path)
    parser.add_argument("--threshold", type=float, default=0.3, help="of the map, relative to its maximum")
    arguments = parser.parse_args()

    run = load_run(arguments.run, device="cpu")
    network = load_localizers(run)[run.config.cam.method].network
    for frame in stream_frames(arguments.video, size=run.input_size):
        with torch.no_grad():
            output = network(torch.from_numpy(frame.pixels)[None])
        inputs = from_head(output.features, output.class_logits.argmax(dim=1), network.head)
        geometry = FrameGeometry.plain_resize(frame.original_size, run.input_size)
        for method in (layer_cam, positive_grad_cam):
            cam = normalize_cam(method(inputs))
            full = interpolate(cam[None], size=run.input_size, mode="bilinear", align_corners=False)[0, 0]
            print(frame.index, method.__name__, extract_box(full, arguments.threshold, geometry))


if __name__ == "__main__":
    main()
