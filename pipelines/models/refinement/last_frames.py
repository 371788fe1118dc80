"""Maps of a stream that agree with those of its last frames (``tcam stream --refine joint``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.models.engine import ArrayMaps, FrameMaps, Threads
from pipelines.models.forks import naming_forks
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer
from tcam.supervision.joint_walk import start_maps
from tcam.types import Pixels

_Held = tuple[Tensor, Tensor]


class LastFramesEngine:
    """Makes the map of each frame agree with the last frames before it; frames must come in the order of the stream.

    The frame walks with those 1, 2, ... strides before it, ``window`` in all (``JointWalk``). A map is done as soon as
    its frame is there, unlike ``walked_maps``, where frames also walk with later ones. It holds the maps and features
    of ``window * stride`` frames.

    Args:
        localizer: a localizer with a walk, which hands out features.
        held: maps and features of the frames before, where a stream is continued.

    Raises:
        ValueError: the localizer has no walk.
    """

    def __init__(self, localizer: NetworkLocalizer, held: Sequence[_Held] = ()) -> None:
        if localizer.walk is None:
            raise ValueError("expected a localizer with a walk, got one without")
        self._localizer, self._walk = localizer, localizer.walk
        self._held = deque(held, maxlen=self._walk.window * self._walk.stride)

    @property
    def threads(self) -> Threads:
        """One call at a time, in order."""
        return "all"

    def find(self, frames: Pixels, label: int | None) -> ArrayMaps:
        """Return maps, class probabilities and labels of the next frames; see ``Engine``.

        Raises:
            ForkError: PyTorch cannot work in this process because of what its parent had done before the fork.
        """
        labels = None if label is None else torch.full((len(frames),), label)
        with naming_forks(), torch.inference_mode():
            found = self._localizer(torch.from_numpy(frames), labels)
            assert found.features is not None, "a localizer with a walk hands them out"
            starts = start_maps(found.maps, (found.features.shape[2], found.features.shape[3]))
            walked = torch.stack([self._next(*pair) for pair in zip(starts, found.features, strict=True)])
            size = (frames.shape[2], frames.shape[3])
            maps = functional.interpolate(walked[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        return FrameMaps(*(part.cpu().numpy() for part in (maps, found.probabilities, found.labels)))

    def _next(self, start: Tensor, features: Tensor) -> Tensor:
        self._held.append((start, features))
        stride = self._walk.stride_of(len(self._held))
        together = list(self._held)[::-stride][: self._walk.window]
        maps, seen = (torch.stack(part) for part in zip(*together, strict=True))
        return self._walk.together(maps, seen)[0]

    def new_stream(self) -> LastFramesEngine:
        """Return an engine for another stream, at its first frame; it shares the network."""
        return LastFramesEngine(self._localizer)

    def pack(self) -> PackedLastFrames:
        """Return a form of it that can be pickled, with the frames it holds."""
        return PackedLastFrames(self._localizer.pack(), tuple(self._held))

    def after_fork(self) -> LastFramesEngine:
        """Return an engine that works in this process, which was forked.

        Raises:
            ForkError: it is on a GPU.
        """
        return LastFramesEngine(self._localizer.after_fork(), self._held)


@dataclass(frozen=True, slots=True)
class PackedLastFrames:
    """A ``LastFramesEngine`` that can be sent to another process."""

    localizer: PackedLocalizer
    held: tuple[_Held, ...]

    @property
    def device_type(self) -> str:
        """The type of the device it is unpacked to."""
        return self.localizer.device_type

    def unpack(self) -> LastFramesEngine:
        """Load the network; the frames held go to its device."""
        localizer = self.localizer.unpack()
        device = localizer.compute.device
        return LastFramesEngine(localizer, [(start.to(device), features.to(device)) for start, features in self.held])
