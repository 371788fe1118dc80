"""Maps of a video that agree with each other: the network in batches, then the walk over blocks of frames, in order.

The whole video is one shot. A forward pass always holds the same frames, those from a multiple of ``batch`` on, and the
blocks of the walk do not depend on where reading starts: so a part of a video gives the same bits as the whole.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.models.engine import FrameMaps
from pipelines.models.localizer import NetworkLocalizer
from tcam.supervision.joint_walk import start_maps
from tcam.types import Size, VideoRecord
from tcam.video.dataset import stream_original
from tcam.video.reader import DecodedFrame


def whole_batches(frames: range, batch: int) -> range:
    """Return a range of frames extended to multiples of ``batch``."""
    return range(frames.start // batch * batch, -(-frames.stop // batch) * batch)


def walked_maps(
    localizer: NetworkLocalizer, frames: Iterable[DecodedFrame], *, within: range, batch: int, label: int | None
) -> Iterator[tuple[DecodedFrame, FrameMaps[Tensor]]]:
    """Yield each frame with its map after the walk, of one frame ``[1, H, W]``; at most a block of frames is held.

    Args:
        localizer: a localizer with a walk, which hands out features.
        frames: in order, from a multiple of ``batch`` on.
        within: the frames that walk: a context as ``JointWalk.context`` returns it. Others are left out.
        batch: frames per forward pass.
        label: the class to map; None takes the most probable one in each frame.

    Raises:
        ValueError: the localizer has no walk.
    """
    if localizer.walk is None:
        raise ValueError("expected a localizer with a walk, got one without")
    waiting: deque[tuple[DecodedFrame, Tensor, Tensor]] = deque()

    def look() -> Iterator[tuple[Tensor, Tensor]]:
        source = iter(frames)
        while chunk := list(itertools.islice(source, batch)):
            labels = None if label is None else torch.full((len(chunk),), label)
            found = localizer(torch.from_numpy(np.stack([frame.pixels for frame in chunk])), labels)
            features = found.features
            assert features is not None, "a localizer with a walk hands them out"
            starts = start_maps(found.maps, (features.shape[2], features.shape[3]))
            for i, frame in enumerate(chunk):
                if frame.index in within:
                    waiting.append((frame, found.probabilities[i : i + 1], found.labels[i : i + 1]))
                    yield starts[i], features[i]

    for walked in localizer.walk.walk_in_order(look()):
        frame, probabilities, labels = waiting.popleft()
        size = (frame.pixels.shape[1], frame.pixels.shape[2])
        maps = functional.interpolate(walked[None, None], size=size, mode="bilinear", align_corners=False)[0]
        yield frame, FrameMaps(maps, probabilities, labels)


def walked_frames(
    localizer: NetworkLocalizer, record: VideoRecord, wanted: Collection[int], *, batch: int, size: Size
) -> Iterator[FrameMaps[Tensor]]:
    """Yield the maps of some frames of a video, in order, for its tag; only frames that walk with them are read.

    Raises:
        ValueError: the localizer has no walk.
        VideoError: the video cannot be read.
    """
    if localizer.walk is None:
        raise ValueError("expected a localizer with a walk, got one without")
    shot = range(record.num_frames)
    contexts = _joined([localizer.walk.context(range(i, i + 1), shot) for i in sorted(wanted)], batch)
    passes = [whole_batches(context, batch) for context in contexts]
    frames = stream_original(record, size=size, only={i for part in passes for i in part})
    starts = [part.start for part in passes]
    for count, group in itertools.groupby(frames, key=lambda frame: bisect.bisect(starts, frame.index)):
        found = walked_maps(localizer, group, within=contexts[count - 1], batch=batch, label=record.label)
        yield from (maps for frame, maps in found if frame.index in wanted)


def _joined(contexts: Sequence[range], batch: int) -> list[range]:
    """Join contexts that have a forward pass in common or follow on each other."""
    joined: list[range] = []
    for context in contexts:
        if joined and whole_batches(context, batch).start <= whole_batches(joined[-1], batch).stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, context.stop))
        else:
            joined.append(context)
    return joined
