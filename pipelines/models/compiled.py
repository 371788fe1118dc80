"""A localizer whose network was compiled by ``torch.compile``, for one batch size and number of threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from pipelines.models.engine import ArrayMaps, FrameMaps, Threads
from pipelines.models.exported import quiet_loggers
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer
from tcam.errors import MissingPartError, one_line
from tcam.model.network import FrameCamNet
from tcam.types import Size
from tcam.video.pixels import Pixels


@dataclass(frozen=True, slots=True)
class CompiledLocalizer:
    """An ``Engine``. A smaller batch (the last of a video) is padded, as another size would be compiled again.

    ``plain`` is the localizer that was compiled, for frames of ``size``.
    """

    localizer: NetworkLocalizer
    plain: NetworkLocalizer
    size: Size
    batch: int
    threads: Threads
    torch_threads: int

    def find(self, frames: Pixels, label: int | None) -> ArrayMaps:
        """Process up to ``batch`` frames; see ``Engine``."""
        count = len(frames)
        # The memory layout of a file's frames; another layout would be compiled again.
        rows = np.ascontiguousarray(frames.transpose(0, 2, 3, 1))
        filled = rows if count == self.batch else np.resize(rows, (self.batch, *rows.shape[1:]))
        with _torch_threads(self.torch_threads):  # with another number of threads, too
            found = self.localizer.find(filled.transpose(0, 3, 1, 2), label)
        return FrameMaps(found.maps[:count], found.probabilities[:count], found.labels[:count])

    def pack(self) -> PackedCompiled:
        """Return it packed for another process, which compiles it for itself."""
        return PackedCompiled(self.plain.pack(), self.size, self.batch, self.threads)

    def after_fork(self) -> CompiledLocalizer:
        """Return itself, as ``NetworkLocalizer`` does."""
        return replace(self, localizer=self.localizer.after_fork())


@dataclass(frozen=True, slots=True)
class PackedCompiled:
    """A compiled localizer that can be sent to another process, where it is compiled when it is unpacked."""

    packed: PackedLocalizer
    size: Size
    batch: int
    threads: Threads

    @property
    def device_type(self) -> str:
        """The type of the device it is unpacked to."""
        return self.packed.device_type

    def unpack(self) -> CompiledLocalizer:
        """Bring the network to its device and compile it, which takes a while."""
        return compile_localizer(self.packed.unpack(), self.size, batch=self.batch, threads=self.threads)


def compile_localizer(
    localizer: NetworkLocalizer, size: Size, *, batch: int, threads: Threads = "all"
) -> CompiledLocalizer:
    """Compile the network, which takes 10 to 60 s, and run a first batch.

    On a CPU the weights are frozen into the code: normalisation is folded into the convolutions, and their weights are
    laid out once.

    Args:
        localizer: the localizer; it is not changed.
        size: (height, width) of the frames.
        batch: number of frames in a batch.
        threads: ``each`` compiles for a single thread, so that batches run side by side; any other value for as many
            threads as torch uses now.

    Raises:
        MissingPartError: torch.compile does not work here.
    """
    on_cpu = localizer.compute.device.type == "cpu"
    network = cast("FrameCamNet", torch.compile(localizer.network, dynamic=False))
    single = threads == "each" and on_cpu
    own, count = replace(localizer, network=network), 1 if single else torch.get_num_threads()
    compiled = CompiledLocalizer(own, localizer, size, batch, "each" if single else "all", count)
    try:
        import torch._inductor.config as inductor
        from torch._inductor.cpp_builder import get_cpp_compiler

        if on_cpu:
            get_cpp_compiler()  # it would be missed only after all has been traced
        with quiet_loggers(), inductor.patch(freezing=on_cpu):
            compiled.find(np.zeros((batch, 3, *size), np.uint8), None)
    except Exception as error:  # the compiler has dozens of its own
        raise MissingPartError(
            f"torch.compile does not work here ({one_line(error)}); it needs a C++ compiler"
        ) from None
    return compiled


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Set the number of threads that torch uses in this thread."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
