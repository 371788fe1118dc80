"""Time, error and memory of the CRF energies of tcam, compared with compiled lattices in the same run.

    .venv/bin/python tools/bench/crf.py --videos ../shared/data/clips

The frames are real, 224 x 224, one per video; those of a sequence are neighbours in one video. The maps are blobs with
noise. Ours is the whole loss, forward and backward from the logits: TCAM's term (position + colour), the term of one
frame by colour only (colour), or CoLo-CAM's adaptive term over n frames (joint). The peer is the permutohedral lattice
of pydensecrf2, which uses one thread: building it, and one step of mean field, which filters two maps. Its columns are
empty if it is not installed. If ours may use several threads, the peer filters frames in as many processes at once; a
sequence has only one lattice, which keeps one thread, as in the official code. Peer and ours take turns; medians of
rounds. `exact` is computed once, in float64, over all pairs of pixels (position + colour) or over the whole 256^3
histogram (colour).

The official lattice of TCAM and CoLo-CAM (GPL, not used here) took 10.5, 6.7 and 56 ms with one thread, and 5.7, 3.6
and 58 ms with two, on another machine (design notes, 2026). The peer stands in for it. `--prototypes
../shared/prototypes` compares with it indirectly: the prototypes of the notes took turns with the official lattice on
that machine, and take turns with ours on this one.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import torch
from frames import read_frames
from harness import header, measure, table_head, table_row, timed, wall_clock
from torch import Tensor
from torch.nn import functional

from colocam.colour_crf import joint_colour_energy
from pipelines.run.memory import keep_freed_memory
from tcam.supervision import losses
from tcam.supervision.crf.affinity import gaussian_filter
from tcam.supervision.losses import crf_energy
from tcam.video.reader import stream_frames

try:
    from pydensecrf import densecrf
except ImportError:
    densecrf = None

SIGMA_RGB, SIGMA_XY = 15.0, 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=31, help="per case; medians count")
    parser.add_argument("--exact", type=int, default=2, help="frames compared with all pairs of pixels (a minute each)")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: adds a ResNet-50 training step to compare with")
    parser.add_argument(
        "--prototypes",
        type=Path,
        help="folder of crf_filters.py, which was measured with the official lattice",
    )
    parser.add_argument("--memory", type=int, nargs=2, metavar=("B", "T"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    frames = read_frames(options.videos, 32, number=9)
    if options.memory:
        print_memory(frames, *options.memory)
        return
    keep_freed_memory()  # as every command of tcam does; the peer gains as well
    sequence = read_sequence(options.videos, 16)
    print(header(f"{options.rounds} rounds, medians", device=options.device), end="\n\n")
    if options.exact:
        report_errors(frames, sequence, options.exact)
    threads = options.threads if options.device == "cpu" else [torch.get_num_threads()]
    for count in threads:
        torch.set_num_threads(count)
        report_times(frames, sequence, count, options)
        if options.prototypes:
            report_prototypes(frames, sequence, count, options)
    torch.set_num_threads(1)
    report_scaling(frames, options)
    if options.device == "cpu":
        report_memory(options.videos)
    else:
        report_training_step(frames, options)


def read_sequence(videos: Path, count: int) -> Tensor:
    """Read the first frames of the first video that has enough, uint8 ``[count, 3, 224, 224]``."""
    for file in sorted(videos.glob("*/*.mp4")):
        frames = [
            torch.from_numpy(frame.pixels) for frame in itertools.islice(stream_frames(file, size=(224, 224)), count)
        ]
        if len(frames) == count:
            return torch.stack(frames)
    sys.exit(f"error: expected a video <class>/<video>.mp4 of {count} frames in {videos}, found none")


def make_logits(count: int, side: int = 224) -> Tensor:
    """Return blobs with noise, ``[count, 2, side, side]``."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    centres = torch.rand(2, count, 1, 1, generator=generator) * 1.4 - 0.7
    widths = 0.15 + 0.3 * torch.rand(count, 1, 1, generator=generator)
    blobs = 6 * torch.exp(-((x - centres[0]).square() + (y - centres[1]).square()) / (2 * widths.square())) - 3
    foreground = blobs + 0.7 * torch.randn(count, side, side, generator=generator)
    return torch.stack([torch.zeros_like(foreground), foreground], dim=1)


def energy_step(logits: Tensor, frames: Tensor, sigma_xy: float | None) -> Callable[[], None]:
    leaf = logits.clone().requires_grad_()
    return lambda: take_gradient(crf_energy(leaf, frames, sigma_rgb=SIGMA_RGB, sigma_xy=sigma_xy).mean(), leaf)


def joint_step(logits: Tensor, frames: Tensor) -> Callable[[], None]:
    leaf = logits[None].clone().requires_grad_()
    return lambda: take_gradient(joint_colour_energy(leaf, frames[None], sigma_rgb=SIGMA_RGB, adaptive=True), leaf)


def take_gradient(energy: Tensor, logits: Tensor) -> None:
    """Compute the gradient of the logits without storing it, so that calls do not add up."""
    torch.autograd.grad(energy, logits)


def lattice_step(frames: Tensor, sigma_xy: float | None) -> Callable[[], None]:
    """Return the peer's work on frames ``[B, 3, H, W]``: a lattice per frame, or without positions one for all."""
    height, width = frames.shape[2:]
    images = [np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    colours = np.ascontiguousarray(frames.permute(1, 0, 2, 3).reshape(3, -1).numpy().astype(np.float32) / SIGMA_RGB)
    plain = {"kernel": densecrf.DIAG_KERNEL, "normalization": densecrf.NO_NORMALIZATION}

    def with_positions() -> None:
        for image in images:
            crf = densecrf.DenseCRF2D(width, height, 2)
            crf.setUnaryEnergy(np.zeros((2, height * width), np.float32))
            crf.addPairwiseBilateral(sxy=sigma_xy, srgb=SIGMA_RGB, rgbim=image, compat=1, **plain)
            crf.inference(1)

    def colour_only() -> None:
        crf = densecrf.DenseCRF(colours.shape[1], 2)
        crf.setUnaryEnergy(np.zeros((2, colours.shape[1]), np.float32))
        crf.addPairwiseEnergy(colours, compat=1, **plain)
        crf.inference(1)

    return colour_only if sigma_xy is None else with_positions


class Lattices:
    """The peer's work: the lattices of some frames, in as many processes as ours has threads."""

    frames_per_process = 8
    steps: ClassVar[list[Callable[[], None]]] = []
    """Of this worker process."""

    def __init__(self, frames: Tensor, sigma_xy: float | None, processes: int) -> None:
        given = frames[:: len(frames) // self.frames_per_process].numpy(), sigma_xy
        self.workers = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), self.prepare, given)
        self.processes = processes

    @classmethod
    def prepare(cls, frames: np.ndarray, sigma_xy: float | None) -> None:
        """Set up a worker."""
        keep_freed_memory()
        torch.set_num_threads(1)
        # Frame by frame: a lattice of colour only would join the frames.
        cls.steps = [lattice_step(torch.from_numpy(frame)[None], sigma_xy) for frame in frames]

    @classmethod
    def run(cls) -> None:
        """Run a worker's share."""
        run_all(cls.steps)

    def __call__(self) -> None:
        """Run the share of every worker, and wait for all."""
        for working in [self.workers.submit(self.run) for _ in range(self.processes)]:
            working.result()


def run_all(steps: list[Callable[[], None]]) -> None:
    for step in steps:
        step()


def report_times(frames: Tensor, sequence: Tensor, threads: int, options: argparse.Namespace) -> None:
    device, logits = torch.device(options.device), make_logits(32)
    print(f"**{threads} thread{'s' if threads > 1 else ''}**, milliseconds per frame (joint: per sequence)\n")
    print(table_head("case", "ours", "lattice peer", "ratio"))
    for name, sigma in (("position + colour", SIGMA_XY), ("colour", None)):
        peer = Lattices(frames, sigma, threads) if densecrf else None
        for count in (8, 32):
            batches = zip(logits.to(device).split(count), frames.to(device).split(count), strict=True)
            steps = [energy_step(*batch, sigma) for batch in batches]  # all frames: some need larger grids than others
            peers_per = threads * Lattices.frames_per_process
            ours = partial(run_all, steps)
            print_times(f"{name}, B = {count}", ours, peer, options, ours_per=len(frames), peers_per=peers_per)
        if peer:
            peer.workers.shutdown()
    for count in (2, 4, 8, 16):
        ours = joint_step(logits[:count].to(device), sequence[:count].to(device))
        peer = lattice_step(sequence[:count], None) if densecrf else None
        print_times(f"joint, n = {count}", ours, peer, options, ours_per=1, peers_per=1)
    print()


def print_times(
    name: str, ours: Callable[[], None], peer: Callable[[], None] | None, options: argparse.Namespace, *,
    ours_per: int, peers_per: int,
) -> None:  # fmt: skip
    cases = {"ours": ours, **({"peer": peer} if peer else {})}
    times, _ = measure(cases, options.rounds, clock=wall_clock(options.device))
    cells = ["–", "–"]
    if peer:
        ratio = times.ratio("peer", "ours") * ours_per / peers_per
        cells = [f"{1000 * times.median('peer') / peers_per:.1f}", f"{ratio:.1f}x"]
    print(table_row(name, f"{1000 * times.median('ours') / ours_per:.2f}", *cells), flush=True)


def report_prototypes(frames: Tensor, sequence: Tensor, threads: int, options: argparse.Namespace) -> None:
    """Compare with prototypes that were measured with the official lattice elsewhere: same loss, other filter."""
    sys.path.insert(0, str(options.prototypes.resolve()))
    import crf_filters

    def steps(sigma: float | None) -> Callable[[], None]:
        batches = zip(make_logits(len(frames)).split(8), frames.split(8), strict=True)
        return partial(run_all, [energy_step(*batch, sigma) for batch in batches])

    cases = (
        ("position + colour, B = 8", steps(SIGMA_XY), len(frames),
         lambda q, i: crf_filters.xyrgb_ad2(i, q, m=32, r=6, k=18), {1: 4.6, 2: 2.8}),
        ("colour, B = 8", steps(None), len(frames),
         lambda q, i: crf_filters.color_hist1(i, q, m=64, k=18), {1: 6.5, 2: 5.9}),
        ("joint, n = 8", joint_step(make_logits(8), sequence[:8]), 1,
         lambda q, i: crf_filters.color_hist1(i, q, m=128, k=20), {1: 4.9, 2: 5.3}),
    )  # fmt: skip
    print("The same loss with the prototypes of the design notes; last two columns: times the official speed\n")
    print(table_head("case", "ours", "prototype", "ratio", "prototype, design notes", "so ours"))
    for name, ours, count, kernel, official in cases:
        times, _ = measure({"ours": ours, "prototype": partial(run_with_kernel, ours, kernel)}, options.rounds)
        ratio, noted = times.ratio("prototype", "ours"), official.get(threads)
        cells = [*(f"{1000 * seconds / count:.2f}" for seconds in times.medians().values()), f"{ratio:.2f}x"]
        cells += [f"{noted}x", f"{noted * ratio:.1f}x"] if noted else ["–", "–"]
        print(table_row(name, *cells), flush=True)
    print()


def run_with_kernel(step: Callable[[], None], kernel: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Run a step of the loss with the filter of a prototype."""
    with mock.patch.object(losses, "gaussian_energies", partial(energies_of_prototype, kernel)):
        step()


def energies_of_prototype(
    kernel: Callable[[Tensor, Tensor], Tensor], maps: Tensor, frames: Tensor, **_: object
) -> tuple[Tensor, Tensor]:
    """Filter with a prototype, which takes single images: a sequence becomes a tall image."""
    tall = maps.flatten(2, -2), frames.flatten(2, -2)
    filtered = kernel(*tall)
    return torch.linalg.vecdot(tall[0].flatten(2), filtered.flatten(2)), filtered.view(maps.shape)


def report_errors(frames: Tensor, sequence: Tensor, count: int) -> None:
    """Print the error of ``W q`` and of the gradient: colour on 8 frames and a sequence, positions on ``count``."""
    contrast = torch.tanh(make_logits(8)[:, 1:] / 2)
    print("Error against exact: relative L2 of W q (mean, worst), lowest cosine of the gradient, seconds per frame\n")
    print(table_head("case", "tolerance", "error", "worst", "cosine", "exact takes"))
    whole = contrast.transpose(0, 1).reshape(1, 1, -1, 224), sequence[:8].transpose(0, 1).reshape(1, 3, -1, 224)
    for name, maps, images, sigma, tolerance in (
        ("colour", contrast, frames[:8], None, 0.04),
        ("joint, n = 8", *whole, None, 0.016),
        ("position + colour", contrast[:count], frames[:count], SIGMA_XY, 0.04),
    ):
        exact, took = timed(partial(exact_colour if sigma is None else exact_pairs, maps, images))
        fast = gaussian_filter(maps, images, sigma_rgb=SIGMA_RGB, sigma_xy=sigma, tolerance=tolerance)
        errors = (fast - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
        slopes = [((1 - maps.double().square()) * each).flatten(1) for each in (fast.double(), exact)]
        cosine = functional.cosine_similarity(*slopes, dim=1)
        cells = f"{errors.mean():.2%}", f"{errors.max():.2%}", f"{cosine.min():.5f}", f"{took / len(images):.1f} s"
        print(table_row(name, f"{tolerance:.1%}", *cells), flush=True)
    print()


def exact_pairs(maps: Tensor, frames: Tensor) -> Tensor:
    return gaussian_filter(maps.double(), frames, sigma_rgb=SIGMA_RGB, sigma_xy=SIGMA_XY, exact=True)


def exact_colour(maps: Tensor, frames: Tensor) -> Tensor:
    """Filter by colour over all 256^3 colours in float64: exact for any number of pixels."""
    levels = torch.arange(256, dtype=torch.float64)
    kernel = torch.exp(-(levels[:, None] - levels).square() / (2 * SIGMA_RGB**2))
    filtered = []
    for one, frame in zip(maps.double(), frames.long(), strict=True):
        cells = ((frame[0] * 256 + frame[1]) * 256 + frame[2]).flatten()
        grid = torch.zeros(256**3, dtype=torch.float64).index_add_(0, cells, one.flatten())
        grid = kernel @ (kernel @ grid.view(256, 256, 256) @ kernel).view(256, -1)
        filtered.append(grid.view(-1)[cells].view(one.shape))
    return torch.stack(filtered)


def report_scaling(frames: Tensor, options: argparse.Namespace) -> None:
    print("Cost against size, ours, 1 thread, milliseconds per frame, B = 4\n")
    print(table_head("side", "position + colour", "colour"))
    for side in (112, 224, 448, 896):
        images = functional.interpolate(frames[:4].float(), size=(side, side), mode="bilinear").to(torch.uint8)
        images, logits = images.to(options.device), make_logits(4, side).to(options.device)
        steps = {sigma: energy_step(logits, images, sigma) for sigma in (SIGMA_XY * side / 224, None)}
        times, _ = measure(steps, options.rounds, clock=wall_clock(options.device))
        print(table_row(side, *(f"{1000 * seconds / 4:.2f}" for seconds in times.medians().values())), flush=True)
    print()


def report_memory(videos: Path) -> None:
    print("Memory that one loss of ours adds to a process which holds the frames and logits, MB\n")
    print(table_head("case", "position + colour and joint, one after another"))
    for batch, length in ((8, 1), (32, 1), (1, 8), (1, 16), (4, 8)):
        command = [sys.executable, __file__, "--videos", str(videos), "--memory", str(batch), str(length)]
        grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        print(table_row(f"{batch} sequences of {length}", grown), flush=True)
    print()


def print_memory(frames: Tensor, batch: int, length: int) -> None:
    """Print by how many MB this process grows over one loss; call it in a new process."""
    images, logits = frames[: batch * length], make_logits(batch * length).requires_grad_()
    energy_step(logits[:1, :, :8, :8], images[:1, :, :8, :8], SIGMA_XY)()  # compiles and loads
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark (Linux)
    before = high_water_mb()
    crf_energy(logits, images, sigma_rgb=SIGMA_RGB, sigma_xy=SIGMA_XY).mean().backward()
    pairs = logits.detach().unflatten(0, (batch, length)), images.unflatten(0, (batch, length))
    joint_colour_energy(*pairs, sigma_rgb=SIGMA_RGB, adaptive=True)
    print(f"{high_water_mb() - before:.0f}")


def high_water_mb() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def report_training_step(frames: Tensor, options: argparse.Namespace) -> None:
    """Compare the CRF of 32 frames with a ResNet-50 training step of 32 frames under AMP."""
    import torchvision

    network = torchvision.models.resnet50(weights=None).to(options.device)
    images, logits = frames.to(options.device), make_logits(32).to(options.device)

    def train() -> None:
        with torch.autocast(options.device, dtype=torch.bfloat16):
            network(images / 255).square().mean().backward()

    steps = {"ResNet-50 training step": train, "position + colour": energy_step(logits, images, SIGMA_XY),
             "colour": energy_step(logits, images, None)}  # fmt: skip
    times, _ = measure(steps, options.rounds, warm_up=3, clock=wall_clock(options.device))
    whole = times.median("ResNet-50 training step")
    for name, took in times.medians().items():
        print(f"{name}, 32 frames: {1000 * took:.2f} ms, {took / whole:.1%}")


if __name__ == "__main__":
    main()
