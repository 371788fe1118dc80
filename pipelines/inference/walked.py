"""Predict parts of a video whose maps are made to agree (``--refine joint``): which frames to read, and their boxes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.inference.frames import FramePrediction, find_boxes
from pipelines.models.engine import Engine, FrameMaps, frames_per_pass
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.refinement.walked import walked_maps, whole_batches
from tcam.supervision.joint_walk import JointWalk
from tcam.video.reader import DecodedFrame


@dataclass(frozen=True, slots=True)
class WalkedPart:
    """Some frames of a video, and those that walk with them; a whole video is one shot.

    Attributes:
        frames: the frames whose boxes are wanted.
        within: these and the frames that share a block of the walk with them.
        read: these and the frames that share a forward pass with them.
    """

    frames: range
    within: range
    read: range


@dataclass(frozen=True, slots=True)
class WalkedPredictor:
    """Localizes in parts of videos by a network with a walk, ``batch`` frames per forward pass."""

    localizer: NetworkLocalizer
    walk: JointWalk
    batch: int

    @classmethod
    def of_engine(cls, engine: Engine, batch: int) -> WalkedPredictor:
        """Return it for an engine that has a walk.

        Raises:
            ValueError: it has none.
        """
        if not isinstance(engine, NetworkLocalizer) or engine.walk is None:
            raise ValueError(f"expected a network with a walk, got {type(engine).__name__}")
        return cls(engine, engine.walk, frames_per_pass(engine, batch))

    def part(self, frames: range, *, num_frames: int) -> WalkedPart:
        """Return some frames of a video of so many frames, with those to read."""
        within = self.walk.context(frames, range(num_frames))
        whole = whole_batches(within, self.batch)
        return WalkedPart(frames, within, range(whole.start, min(whole.stop, num_frames)))

    def rest(self, first: int) -> WalkedPart:
        """Return all frames from ``first`` on of a video of unknown length, with those to read."""
        within = range(self.walk.context_start(first), sys.maxsize)
        return WalkedPart(
            range(first, sys.maxsize), within, range(within.start // self.batch * self.batch, sys.maxsize)
        )

    def predict(
        self,
        video_id: str,
        frames: Iterator[DecodedFrame],
        part: WalkedPart,
        *,
        threshold: float,
        class_names: Sequence[str],
        label: int | None,
    ) -> Iterator[FramePrediction]:
        """Localize in every frame of a part, in order; other frames are passed over. See ``predict_video``.

        Raises:
            VideoError: the video cannot be read.
        """
        read = (frame for frame in frames if frame.index in part.read)
        for frame, maps in walked_maps(self.localizer, read, within=part.within, batch=self.batch, label=label):
            if frame.index in part.frames:
                found = FrameMaps(*(values.cpu().numpy() for values in (maps.maps, maps.probabilities, maps.labels)))
                yield from find_boxes(found, video_id, [frame], threshold=threshold, class_names=class_names)
