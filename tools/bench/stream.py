"""Frames per second from a video file to boxes, beside decoding alone, the network alone and a plain loop.

    .venv/bin/python tools/bench/stream.py --source CLIP.mp4 --backbone resnet50 --set model.output_stride=32
    .venv/bin/python tools/bench/stream.py --source CLIP.mp4 --run runs/pets-001 --calibrate ../shared/data/clips/car

All rows take turns in one process; medians of rounds. Without a run the weights are random, which does not change the
time. A run is measured with every engine that is installed: PyTorch, compiled, ONNX Runtime, OpenVINO, and OpenVINO
with 8 bits if ``--calibrate`` names videos. The rows:

* decode: PyAV only, frames are dropped; decode + scale: what the reader thread of ``tcam stream`` does;
* products: large matrix products in the precision that ``auto`` chooses, one per thread, with as many operations as the
  network needs for these frames: the limit of this machine for a network of that size in that precision;
* network: maps of batches of 8 frames in memory, computed as in ``tcam stream`` (PyTorch: several batches at a time,
  one per thread);
* stream: ``tcam stream`` without its output: reader thread, one resize in the decoder, batches of 8, boxes;
* plain loop: PyAV at full size, RGB, torch resize, float32 forward pass of one frame, threshold, OpenCV contours.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from harness import header, measure, table_head, table_row
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from pipelines.bench.compared import engines_of_run
from pipelines.config.schema import load_config
from pipelines.models.compiled import compile_localizer
from pipelines.models.device import choose_compute
from pipelines.models.engine import Engine, Model
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer, build_network
from pipelines.models.open import open_model
from pipelines.streaming.feed import FrameFeed
from pipelines.streaming.localizer import StreamLocalizer
from pipelines.streaming.network_threads import network_threads
from pipelines.streaming.run import BATCH, MOST_AT_ONCE, localize
from tcam.errors import MissingPartError
from tcam.model.network import FrameCamNet
from tcam.video.reader import stream_frames
from tcam.video.writer import VideoWriter

SIZE = (224, 224)
CLASSES = ("a", "b", "c", "d", "e", "f", "g")


class Bench:
    """A video, a network in one or several engines, and the ways to run it on the video."""

    def __init__(self, source: Path, model: Model, engines: dict[str, Engine], network: FrameCamNet) -> None:
        self.source, self.model, self.engines, self.naive = source, model, engines, network
        self.device = next(network.parameters()).device
        self.on_cpu = self.device.type == "cpu"
        self.operations = operations(network, model.size)
        pixels = [frame.pixels for frame in stream_frames(source, size=model.size)]
        self.num_frames = len(pixels)
        self.batches = [np.stack(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]

    def stream(self, name: str) -> None:
        """Run ``tcam stream`` without its output."""
        model = self.model
        localizer = StreamLocalizer(
            self.engines[name], class_names=model.class_names, size=model.size, threshold=model.threshold
        )
        with FrameFeed(self.source, size=model.size) as feed:
            found = sum(1 for _ in localize(localizer, feed))
        if found != self.num_frames:
            raise RuntimeError(f"expected {self.num_frames} frames, got {found}")

    def network(self, name: str) -> None:
        """Compute the maps of frames in memory."""
        engine = self.engines[name]
        with network_threads(engine.threads, MOST_AT_ONCE) as (threads, _):
            for _ in threads.map(partial(engine.find, label=None), self.batches):
                pass

    def products(self) -> None:
        """Multiply large matrices, one per thread, with as many operations as the network needs for all frames."""
        side, dtype = 1024, choose_compute(str(self.device), "auto").dtype
        with network_threads("each" if self.on_cpu else "all", MOST_AT_ONCE) as (threads, number):
            turns = math.ceil(self.num_frames * self.operations / (2 * side**3) / number)
            pairs = [torch.ones((2, side, side), dtype=dtype, device=self.device) for _ in range(number)]
            for _ in threads.map(lambda i: torch.mm(*pairs[i % number]), range(turns * number)):
                pass
            if self.device.type == "cuda":
                torch.cuda.synchronize()

    def decode(self) -> None:
        """Decode with one thread and drop the frames."""
        with av.open(str(self.source)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for _ in container.decode(video=0):
                pass

    def decode_and_scale(self) -> None:
        """Decode and scale to the size of the network."""
        for _ in stream_frames(self.source, size=self.model.size):
            pass

    @torch.inference_mode()
    def plain_loop(self) -> None:
        """Run the loop that a user would write."""
        with av.open(str(self.source)) as container:
            for frame in container.decode(video=0):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None].to(self.device)
                small = functional.interpolate(pixels.float(), size=self.model.size, mode="bilinear", antialias=True)
                heat = self.naive(small.to(torch.uint8)).map_logits.softmax(dim=1)[0, 1]
                mask = (heat > 0.5 * heat.max()).to(torch.uint8).cpu().numpy()
                contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                if contours:
                    cv2.boundingRect(max(contours, key=cv2.contourArea))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="a finished run, with every engine that is installed")
    parser.add_argument("--calibrate", help="with --run: videos to calibrate OpenVINO with 8 bits")
    parser.add_argument("--backbone", default="resnet50", help="without --run: of a network with random weights")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="without --run: any setting of the network"
    )
    parser.add_argument("--unfused", action="store_true", help="without --run: also with the decoder as trained")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"), help="without --run")
    parser.add_argument("--height", type=int, help="encode the source with this many rows first, such as 360 or 720")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.height is not None:
            options.source = resized(options.source, options.height, Path(folder))
        bench = of_run(options, Path(folder)) if options.run is not None else of_random_network(options)
        name = options.run.name if options.run is not None else options.backbone
        facts = f"{bench.num_frames} frames of {options.source.name}, {options.rounds} rounds"
        network = f"{name}, {bench.operations / 1e9:.1f} GFLOP per frame"
        print(header(network, facts, device=str(bench.device)), end="\n\n")
        timings, _ = measure(ways_of(bench), options.rounds)
        rates = {way: bench.num_frames / seconds for way, seconds in timings.medians().items()}
        show(rates, list(bench.engines), on_cpu=bench.on_cpu)


def resized(source: Path, height: int, folder: Path) -> Path:
    """Write the source with another number of rows."""
    first = next(stream_frames(source))
    size = height, round(height * first.original_size[1] / first.original_size[0] / 2) * 2
    target = folder / f"{source.stem}-{height}.mp4"
    with VideoWriter(target, size=size, fps=25, crf=23) as writer:  # the default of x264
        for frame in stream_frames(source, size=size):
            writer.write(frame.pixels)
    return target


def of_random_network(options: argparse.Namespace) -> Bench:
    settings = ["model.weights=random", f"model.backbone={options.backbone}", *options.set]
    network = build_network(load_config(None, settings).model, len(CLASSES), decoder=True, seed=0).eval()
    compute = choose_compute(options.device, options.precision)
    packed = PackedLocalizer.pack(NetworkLocalizer(network.to(compute.device), "decoder", compute))
    localizer = packed.unpack()
    kind = str(compute.dtype).removeprefix("torch.")
    model = Model(packed, CLASSES, SIZE, 0.5, None, 4000.0, {})
    plain = {f"pytorch {kind}": localizer}
    if options.unfused:
        plain[f"pytorch {kind} unfused"] = replace(localizer, network=network)
    engines: dict[str, Engine] = dict(plain)
    for name, one in plain.items():
        try:
            engines[f"{name} compiled"] = compile_localizer(one, SIZE, batch=BATCH, threads="each")
        except MissingPartError as error:
            print(f"left out {name} compiled: {error}", file=sys.stderr)
    return Bench(options.source, model, engines, network)


def of_run(options: argparse.Namespace, folder: Path) -> Bench:
    model = open_model(options.run, device=options.device)
    engines: dict[str, Engine] = {}
    starts = engines_of_run(
        options.run,
        folder,
        device=options.device,
        size=model.size,
        batch=BATCH,
        threads="each",
        calibrate=options.calibrate,
    )
    for name, start in starts.items():
        try:
            engines[name] = start()
        except MissingPartError as error:
            print(f"left out {name}: {error}", file=sys.stderr)
    assert isinstance(model.packed, PackedLocalizer)
    plain = model.packed.network.to(options.device).eval()
    return Bench(options.source, model, engines, plain)


def operations(network: FrameCamNet, size: tuple[int, int]) -> int:
    """Count the multiplications and additions of one frame."""
    frame = torch.zeros((1, 3, *size), dtype=torch.uint8, device=next(network.parameters()).device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        (network.fused() if frame.device.type == "cpu" else network)(frame)
    return counter.get_total_flops()


def ways_of(bench: Bench) -> dict[str, Callable[[], None]]:
    """Return the ways by name, those of an engine side by side."""
    ways: dict[str, Callable[[], None]] = {"decode": bench.decode, "decode + scale": bench.decode_and_scale}
    ways["products"] = bench.products
    for name in bench.engines:
        ways[f"network, {name}"] = partial(bench.network, name)
        ways[f"stream, {name}"] = partial(bench.stream, name)
    return ways | {"plain loop": bench.plain_loop}


def show(rates: dict[str, float], engines: Sequence[str], *, on_cpu: bool) -> None:
    """Print the rates, and how close each engine's stream comes to the slower of decoding and its network.

    On a CPU the two share the processors, which lowers the limit: to the work of both, spread evenly.
    """
    print(table_head("way", "frames/s"))
    for name, rate in rates.items():
        print(table_row(name, f"{rate:.1f}"))
    print()
    for name in engines:
        stream, limit = rates[f"stream, {name}"], min(rates["decode"], rates[f"network, {name}"])
        share, times = 100 * stream / limit, stream / rates["plain loop"]
        line = f"{name}: stream reaches {share:.0f} % of the slower of decode and network, {times:.1f}x the plain loop"
        line += f", its network {100 * rates[f'network, {name}'] / rates['products']:.0f} % of products"
        if on_cpu:
            together = 1 / (1 / rates[f"network, {name}"] + 1 / (torch.get_num_threads() * rates["decode + scale"]))
            line += f", {100 * stream / together:.0f} % of both on these processors"
        print(line)


if __name__ == "__main__":
    main()
