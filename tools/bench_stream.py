"""Frames per second from a video file to boxes, beside decoding alone, the network alone and a plain loop.

    .venv/bin/python tools/bench_stream.py --source ../shared/data/clips/car/CLIP.mp4 --backbone resnet50 --rounds 3

Interleaved rounds in one process, medians. Weights are random (the time does not depend on them). The rows:

* stream: ``tcam stream`` without its output: reader thread, one resize in the decoder, batches of 8, boxes;
* decode: PyAV alone, frames thrown away; decode + scale: what the reader thread of `stream` does;
* network: forward passes and maps of batches of 8 that lie in memory, on the one thread that `stream` gives a file, and
  on all threads;
* plain loop: PyAV at full size, RGB, torch resize, float32 forward of one frame, threshold, OpenCV contours.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import av
import cv2
import torch

from pipelines.config import load_config
from pipelines.device import choose_compute, processor_name
from pipelines.frame_feed import FrameFeed
from pipelines.localizer import Localizer, build_network
from pipelines.parallel import one_thread
from pipelines.stream import BATCH, localize
from pipelines.stream_localizer import StreamLocalizer
from tcam.video.reader import stream_frames

SIZE = (224, 224)
CLASSES = ("a", "b", "c", "d", "e", "f", "g")


class Bench:
    """One file, one network, and the ways to bring them together."""

    def __init__(self, source: Path, options: argparse.Namespace) -> None:
        settings = ["model.weights=random", f"model.backbone={options.backbone}"]
        if options.decoder:
            settings.append(f"model.decoder_channels={options.decoder}")
        network = build_network(load_config(None, settings).model, len(CLASSES), decoder=True, seed=0).eval()
        self.source = source
        self.localizer = Localizer(network, "decoder", choose_compute(options.device, options.precision))
        network.to(self.localizer.compute.device)
        self.naive = network
        frames = [torch.from_numpy(frame.pixels) for frame in stream_frames(source, size=SIZE)]
        self.num_frames, self.batches = len(frames), torch.stack(frames).split(BATCH)

    def stream(self) -> None:
        """Run the whole way of ``tcam stream``."""
        localizer = StreamLocalizer(self.localizer, class_names=CLASSES, size=SIZE, threshold=0.5)
        with FrameFeed(self.source, size=SIZE) as feed:
            found = sum(1 for _ in localize(localizer, feed))
        if found != self.num_frames:
            raise RuntimeError(f"expected {self.num_frames} frames, got {found}")

    def decode(self) -> None:
        """Decode and throw away, with one thread."""
        with av.open(str(self.source)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for _ in container.decode(video=0):
                pass

    def decode_and_scale(self) -> None:
        """Decode to network size."""
        for _ in stream_frames(self.source, size=SIZE):
            pass

    def network(self) -> None:
        """Make the maps of frames in memory."""
        for batch in self.batches:
            self.localizer(batch).maps.cpu()

    def network_on_one_thread(self) -> None:
        """Do that as ``tcam stream`` does with a file."""
        with one_thread():
            self.network()

    @torch.inference_mode()
    def plain_loop(self) -> None:
        """Do what a user would write."""
        device = self.localizer.compute.device
        with av.open(str(self.source)) as container:
            for frame in container.decode(video=0):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None].to(device)
                small = torch.nn.functional.interpolate(pixels.float(), size=SIZE, mode="bilinear", antialias=True)
                heat = self.naive(small.to(torch.uint8)).map_logits.softmax(dim=1)[0, 1]
                mask = (heat > 0.5 * heat.max()).to(torch.uint8).cpu().numpy()
                contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                if contours:
                    cv2.boundingRect(max(contours, key=cv2.contourArea))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--decoder", help="e.g. [128,64,32,16,8]; the default of the settings if left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bench = Bench(options.source, options)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    compute, dtype = bench.localizer.compute, str(bench.localizer.compute.dtype).removeprefix("torch.")
    print(f"commit {commit}, {processor_name()}, {os.cpu_count()} processors, {torch.get_num_threads()} torch threads,")
    print(f"{compute.device}, {dtype}, torch {torch.__version__}, {platform.machine()}")
    print(f"{options.backbone}, {options.source.name}: {bench.num_frames} frames, load {os.getloadavg()[0]:.1f}\n")
    ways: dict[str, Callable[[], None]] = {
        "stream": bench.stream,
        "decode": bench.decode,
        "decode + scale": bench.decode_and_scale,
        "network, 1 thread": bench.network_on_one_thread,
        "network, all threads": bench.network,
        "plain loop": bench.plain_loop,
    }
    rates = measure(ways, bench.num_frames, options.rounds)
    show(rates)


def measure(ways: dict[str, Callable[[], None]], frames: int, rounds: int) -> dict[str, float]:
    """Give the median rate of each way; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: frames / median(times) for name, times in seconds.items()}


def show(rates: dict[str, float]) -> None:
    """Print a table, each rate beside that of ``stream``, and the share of the slower limit that was reached."""
    print("| way | frames/s | stream is |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rates['stream'] / rate:.2f}x |")
    limit = min(rates["decode"], rates["network, 1 thread"])
    print(f"\nstream reaches {100 * rates['stream'] / limit:.0f} % of the slower of decode and network on one thread")


if __name__ == "__main__":
    main()
