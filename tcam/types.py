"""Domain types that every part of tcam shares, with their shapes and units.

Conventions. Sizes are ``(height, width)``. Boxes are ``x0, y0, x1, y1`` in pixels of the original frame in display
orientation, half-open, x to the right, y down. Frame ranges are half-open and count from 0. ``_logits`` are before
softmax or sigmoid, ``_s`` are seconds. ``None`` means that nothing was found. B clips, T frames, N = B*T, K classes,
H W image, h w maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcam.errors import MissingPartError

if TYPE_CHECKING:
    import supervision
    import torch
    from torch import Tensor

IGNORE: Final = 255
"""Value of pixel labels that losses ignore."""

NO_CLASS: Final = -1
"""Label of a training clip that is known to hold no object."""

Size = tuple[int, int]
Pixels = NDArray[np.uint8]
"""Pictures: ``[3, h, w]`` RGB, or several of them."""
Decoder = Literal["decord", "pyav", "frames"]
Split = Literal["train", "val", "test"]
ThresholdChoice = Literal["validation", "tags", "default", "oracle", "oracle per class", "none"]
"""Where a map threshold came from; see ``CorLocProtocol``."""
Components = Literal["largest", "largest contour", "all contours"]
"""Which part of a thresholded map gives the box: the 8-connected component with most pixels (half-open boxes, ours), or
the WSOL benchmark's contours: the one with the largest area, or all of them."""
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Shot:
    """Frames ``start`` to ``stop`` (half-open) filmed without a cut; never empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a shot must hold at least one frame, got [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, half-open (a full H x W frame is ``0, 0, W, H``), never empty."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1 and all(map(math.isfinite, self))):
            raise ValueError(f"a box must have x0 < x1 and y0 < y1, got {tuple(self)}")

    def __iter__(self) -> Iterator[float]:
        return iter((self.x0, self.y0, self.x1, self.y1))


@dataclass(frozen=True, slots=True)
class FrameRun:
    """``count`` image files numbered from ``first`` on without a gap, such as ``052/frame0001.jpg`` to ``0104``.

    A name is ``prefix``, the number padded with zeros to ``digits``, and ``suffix``; it is relative to the folder of
    the record, so that one run stands for a whole shot and an index of half a million frames stays small.
    """

    prefix: str
    digits: int
    suffix: str
    first: int
    count: int

    def name(self, position: int) -> str:
        """Name the file at a position of the run, 0 to ``count - 1``."""
        return f"{self.prefix}{self.first + position:0{self.digits}d}{self.suffix}"


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One tagged video of an index.

    ``video_id`` is its path below the data folder with ``/`` (``dog/rex.mp4``); ``path`` is where the original lies;
    ``cache_path`` is the clean all-intra copy that clip readers use where there is one. ``label`` is a position in the
    index's ``class_names``. A video with several tags has a record for each; ``also`` are the labels of the others.
    ``size`` is the display orientation of the original; ``rotation`` is the clockwise turn (0, 90, 180, 270) that
    brings stored pixels to display orientation; ``num_frames`` counts decodable frames. ``runs`` are the image files
    below ``path`` that make the video, in order, where it is not one whole folder.
    """

    video_id: str
    path: str
    label: int
    num_frames: int
    size: Size
    fps: float
    split: Split
    shots: tuple[Shot, ...]
    decoder: Decoder = "pyav"
    rotation: int = 0
    cache_path: str | None = None
    runs: tuple[FrameRun, ...] = ()
    also: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """A frame's true boxes in original pixels (none: it holds no object), and its mask's file (empty: it has none)."""

    video_id: str
    frame_index: int
    label: int
    boxes: tuple[Box, ...]
    mask: str = ""


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """All videos of a data set; ``label`` of a record is a position in ``class_names``."""

    class_names: tuple[str, ...]
    records: tuple[VideoRecord, ...]
    version: int = 1

    def of_split(self, split: Split) -> tuple[VideoRecord, ...]:
        """Return the records of one split, in index order."""
        return tuple(record for record in self.records if record.split == split)


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """How an original frame became network input: resized to ``resized``, cut at ``offset`` (row, column), mirrored.

    ``input_size`` is the size of the cut. With no cut, ``offset`` is (0, 0) and ``input_size`` equals ``resized``.
    """

    original: Size
    resized: Size
    offset: Size
    input_size: Size
    flipped: bool = False

    @classmethod
    def plain_resize(cls, original: Size, input_size: Size) -> FrameGeometry:
        """Describe the geometry of inference: the whole frame, resized, no cut, no mirroring."""
        return cls(original=original, resized=input_size, offset=(0, 0), input_size=input_size)

    def to_original(self, box: Box) -> Box:
        """Map a box of input pixels back to original pixels, clipped to the frame.

        Raises:
            ValueError: the box lies outside the frame.
        """
        x0, x1 = (self.input_size[1] - box.x1, self.input_size[1] - box.x0) if self.flipped else (box.x0, box.x1)
        scale_y, scale_x = self.original[0] / self.resized[0], self.original[1] / self.resized[1]
        return Box(
            max((x0 + self.offset[1]) * scale_x, 0.0),
            max((box.y0 + self.offset[0]) * scale_y, 0.0),
            min((x1 + self.offset[1]) * scale_x, float(self.original[1])),
            min((box.y1 + self.offset[0]) * scale_y, float(self.original[0])),
        )


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """B clips of T frames each: the batch of one training step.

    Attributes:
        frames: uint8 ``[B, T, 3, H, W]``, RGB.
        cams: float32 ``[B, T, H, W]`` in 0..1, cut and mirrored like the frames, or None where none were asked for.
        frame_index: int64 ``[B, T]``.
        label: int64 ``[B]``; ``NO_CLASS`` for a clip without any object.
        video_id: B strings.
    """

    frames: Tensor
    cams: Tensor | None
    frame_index: Tensor
    label: Tensor
    video_id: tuple[str, ...]

    def to(self, device: torch.device) -> ClipBatch:
        """Copy the tensors to a device (asynchronously where memory is pinned)."""
        cams = None if self.cams is None else self.cams.to(device, non_blocking=True)
        frames, label = (tensor.to(device, non_blocking=True) for tensor in (self.frames, self.label))
        return ClipBatch(frames, cams, self.frame_index, label, self.video_id)


@dataclass(frozen=True, slots=True)
class FrameOutput:
    """The output of the frame network for N frames.

    Attributes:
        class_logits: ``[N, K]``.
        features: the class head's input, ``[N, D, h, w]``; every CAM is made from it.
        map_logits: ``[N, 2, H, W]``, 0 background, 1 foreground; None if the network has no decoder.
        attention: attention of a vision transformer's class token to the patches, ``[N, blocks, heads, h, w]``; None
            for other networks.
        affinity: features ``[N, C, h, w]`` at 1/16 of the frame that say which positions look alike, for losses that
            compare positions; None where the loss needs none.
    """

    class_logits: Tensor
    features: Tensor
    map_logits: Tensor | None
    attention: Tensor | None = None
    affinity: Tensor | None = None


@dataclass(frozen=True, slots=True)
class PixelLabels:
    """Pseudo-labels of N maps: uint8 ``[N, H, W]``, 0 background, 1 foreground, ``IGNORE`` elsewhere."""

    labels: Tensor


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Unweighted scalar losses by name, and the weight of each.

    ``counts`` is the number of items (frames, labelled pixels, sequences) that each term is the mean of, so that the
    means over parts of a batch can be combined.
    """

    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]
    counts: Mapping[str, Tensor | int] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The weighted sum, a scalar."""
        import torch  # not at the top: code that only reads videos and boxes does without

        return torch.stack([self.weights[name] * term for name, term in self.terms.items()]).sum()

    def plus(self, name: str, term: Tensor, *, weight: float, count: Tensor | int) -> LossTerms:
        """Add a term; one of weight 0 is left out."""
        if not weight:
            return self
        return LossTerms({**self.terms, name: term}, {**self.weights, name: weight}, {**self.counts, name: count})


@dataclass(frozen=True, slots=True)
class FrameBox:
    """The result for one frame; ``box`` is None if nothing was found.

    ``label`` is the class's number and ``class_name`` its name (empty where nobody named the classes). ``score`` is the
    mean of the map inside the box, ``class_score`` the probability of the class, ``map_peak`` the
    largest value of the map (1 of a CAM, which is divided by it); all in 0..1. Where boxes are followed over time
    (``tcam.boxes.over_time``), ``box`` is the result, ``raw_box`` the box before that, and ``track_id``
    the same number as long as it seems to be the same object; else both are None. ``map`` is float32 ``[h, w]`` in
    0..1 at the network's input size, where ``tcam.Localizer`` made it; else None.
    """

    video_id: str
    frame_index: int
    time_s: float
    label: int
    class_score: float
    score: float
    box: Box | None
    raw_box: Box | None = None
    map_peak: float = 1.0
    track_id: int | None = None
    class_name: str = ""
    map: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    def to_supervision(self) -> supervision.Detections:
        """Return the box as the package ``supervision`` has it, which draws and tracks: one row, or none without a box.

        ``confidence`` is ``score``, ``class_id`` is ``label``, ``tracker_id`` is ``track_id``, ``data`` holds
        ``class_score`` and ``class_name``.

        Raises:
            MissingPartError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError:
            raise MissingPartError(
                "to_supervision needs the package supervision, which is not installed: pip install supervision"
            ) from None
        if self.box is None:
            return Detections.empty()
        return Detections(
            xyxy=np.array([[self.box.x0, self.box.y0, self.box.x1, self.box.y1]], np.float32),
            confidence=np.array([self.score], np.float32),
            class_id=np.array([self.label]),
            tracker_id=None if self.track_id is None else np.array([self.track_id]),
            data={
                "class_score": np.array([self.class_score], np.float32),
                "class_name": np.array([self.class_name]),
            },
        )


@dataclass(frozen=True, slots=True)
class CorLocProtocol:
    """All that a CorLoc number depends on besides the boxes; printed beside every number.

    ``threshold_choice`` says where the map threshold came from: ``validation`` (chosen on the validation split),
    ``default`` (a setting; no boxes chose it), ``oracle`` (best on the evaluated set itself: an upper bound), ``oracle
    per class`` (of each class: what the papers' tables do), or ``none`` (no map). ``inclusive`` counts overlap as the
    WSOL benchmark does, on its grid of 224 x 224.
    """

    threshold_choice: ThresholdChoice
    iou_threshold: float = 0.5
    inclusive: bool = False
    components: Components = "largest"

    def __str__(self) -> str:
        overlap = "inclusive-pixel IoU" if self.inclusive else "IoU"
        grid = " on the 224 grid" if self.inclusive else ""
        shape = "largest component" if self.components == "largest" else self.components
        how = "no map" if self.threshold_choice == "none" else f"{shape}, map threshold: {self.threshold_choice}"
        return f"CorLoc, {overlap} >= {self.iou_threshold:g}{grid}, {how}"
