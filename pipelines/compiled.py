"""A localizer whose network `torch.compile` made faster, for batches of one size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
import torch

from pipelines.engine import FoundMaps, Threads
from pipelines.exported import hushed
from pipelines.localizer import Localizer
from tcam.errors import MissingPartError
from tcam.model.network import FrameCamNet
from tcam.types import Size
from tcam.video.pixels import Pixels


@dataclass(frozen=True, slots=True)
class CompiledLocalizer:
    """An ``Engine``; a smaller batch (the last of a video) is filled up, as another size would be compiled anew."""

    localizer: Localizer
    batch: int
    threads: ClassVar[Threads] = "all"

    def find(self, frames: Pixels, label: int | None) -> FoundMaps:
        """Look at no more than ``batch`` frames: see ``Engine``."""
        count = len(frames)
        filled = frames if count == self.batch else np.resize(frames, (self.batch, *frames.shape[1:]))
        found = self.localizer.find(filled, label)
        return FoundMaps(found.maps[:count], found.labels[:count], found.class_scores[:count])


def compile_localizer(localizer: Localizer, size: Size, *, batch: int) -> CompiledLocalizer:
    """Compile the network, which takes some 10 to 60 s, and look at a first batch.

    Raises:
        MissingPartError: torch.compile does not work here.
    """
    network = cast("FrameCamNet", torch.compile(localizer.network, dynamic=False))
    compiled = CompiledLocalizer(replace(localizer, network=network), batch)
    try:
        with hushed():
            compiled.find(np.zeros((batch, 3, *size), np.uint8), None)
    except Exception as error:  # the compiler has dozens of its own
        reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
        raise MissingPartError(f"torch.compile does not work here ({reason}); it needs a C++ compiler") from None
    return compiled
