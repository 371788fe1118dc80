"""CorLoc: the share of annotated frames whose box overlaps a true box; each number carries its protocol.

CorLoc (Deselaers et al., IJCV 2012) as the video benchmarks count it: a frame is correct if the best IoU between its
box and any of its true boxes reaches the threshold. Papers report the mean over classes (TCAM, arXiv:2208.14542). All
map thresholds are evaluated at once, so choosing one costs nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tcam.types import Components, CorLocProtocol, FrameTruth, ThresholdChoice

_DRAWS = 2000
"""Draws of the bootstrap over videos."""

_SAME = 1e-6
"""Two map thresholds closer than this count as equal."""


@dataclass(frozen=True, slots=True)
class CorLocResult:
    """CorLoc in percent under one protocol.

    Attributes:
        protocol: what the numbers depend on.
        threshold: the map threshold; None if there is no map, or each class has its own.
        thresholds_per_class: by class name if each class has its own, else None; classes without frames are left out.
        per_class: by class name; NaN for a class without annotated frames.
        macro: mean over the classes that have frames; NaN if none has.
        micro: share over all frames; NaN if there are none.
        num_frames: number of annotated frames.
        per_video: by video id.
        frames_per_class: number of annotated frames by class name.
        interval: 95 % bootstrap interval of ``macro`` over videos, (low, high); None if none was drawn.
    """

    protocol: CorLocProtocol
    threshold: float | None
    per_class: Mapping[str, float]
    macro: float
    micro: float
    num_frames: int
    per_video: Mapping[str, float] = field(default_factory=dict)
    frames_per_class: Mapping[str, int] = field(default_factory=dict)
    thresholds_per_class: Mapping[str, float] | None = None
    interval: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON values: NaN becomes None, the protocol becomes its sentence and its fields."""
        return {
            "protocol": str(self.protocol),
            "threshold_choice": self.protocol.threshold_choice,
            "iou_threshold": self.protocol.iou_threshold,
            "inclusive": self.protocol.inclusive,
            "components": self.protocol.components,
            "threshold": self.threshold,
            "thresholds_per_class": None if self.thresholds_per_class is None else dict(self.thresholds_per_class),
            "per_class": {name: _or_none(value) for name, value in self.per_class.items()},
            "macro": _or_none(self.macro),
            "micro": _or_none(self.micro),
            "num_frames": self.num_frames,
            "per_video": {name: _or_none(value) for name, value in self.per_video.items()},
            "frames_per_class": dict(self.frames_per_class),
            "interval": None if self.interval is None else list(self.interval),
        }


class CorLocEvaluator:
    """Counts, for every map threshold, how many frames are correct; memory grows only with the number of videos.

    Args:
        class_names: names of the K classes; a frame's label is a position in them.
        thresholds: the L map thresholds of the boxes, all different.
        iou_threshold: IoU that a correct box must reach, above 0 and at most 1.
        components: the rule for boxes; all but ``largest`` are the benchmark's, with inclusive IoU.

    Raises:
        ValueError: no class, no threshold, a threshold twice, or an ``iou_threshold`` out of range.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        thresholds: Sequence[float],
        *,
        iou_threshold: float = 0.5,
        components: Components = "largest",
    ) -> None:
        if not class_names or not thresholds:
            raise ValueError(f"expected classes and thresholds, got {len(class_names)} and {len(thresholds)}")
        ascending = sorted(thresholds)
        if any(b - a < _SAME for a, b in itertools.pairwise(ascending)):
            raise ValueError(f"thresholds must all differ, got {list(thresholds)}")
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be above 0 and at most 1, got {iou_threshold}")
        self.class_names = tuple(class_names)
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.iou_threshold = iou_threshold
        self.components = components
        self._hits: dict[tuple[int, str], Tensor] = {}
        self._frames: dict[tuple[int, str], int] = {}

    def add(self, truth: Sequence[FrameTruth], overlap: Tensor) -> None:
        """Add N annotated frames.

        Args:
            truth: the truth of the frames; each has at least one true box.
            overlap: ``[N, L]``, the IoU of the box found at each threshold with the best true box (`rules.py`).

        Raises:
            ValueError: another shape, a frame without a true box, or a label that is not a class.
        """
        if overlap.shape != (len(truth), len(self.thresholds)):
            raise ValueError(f"overlap must be {[len(truth), len(self.thresholds)]}, got {list(overlap.shape)}")
        for item in truth:
            if not item.boxes:
                raise ValueError(f"frame {item.frame_index} of {item.video_id} must have a true box, got none")
            if not 0 <= item.label < len(self.class_names):
                raise ValueError(f"label must be below {len(self.class_names)}, got {item.label}")
        for item, right in zip(truth, (overlap >= self.iou_threshold).long().cpu(), strict=True):
            key = (item.label, item.video_id)
            self._hits[key] = self._hits[key] + right if key in self._hits else right
            self._frames[key] = self._frames.get(key, 0) + 1

    def videos_per_class(self) -> dict[str, int]:
        """Return the number of videos of each class, by name."""
        counts = dict.fromkeys(self.class_names, 0)
        for label, _ in self._frames:
            counts[self.class_names[label]] += 1
        return counts

    def accuracy(self, label: int | None = None) -> Tensor:
        """Return the percentage of correct frames at every threshold: float64 ``[L]``, NaN without frames.

        Args:
            label: count the frames of this class only; None counts all frames (micro).
        """
        hits, frames = self._counts()
        if label is not None:
            return 100 * hits[label] / frames[label]
        return 100 * hits.sum(dim=0) / frames.sum()

    def macro_accuracy(self) -> Tensor:
        """Return the mean over classes that have frames at every threshold: float64 ``[L]``, percent."""
        hits, frames = self._counts()
        return (100 * hits / frames[:, None]).nanmean(dim=0)

    def best_threshold(self, macro: bool = True) -> float:
        """Return the threshold with the highest CorLoc (mean over classes, or over frames); the first of equals.

        Raises:
            ValueError: no frame was added.
        """
        if not self._frames:
            raise ValueError("the best threshold needs at least one annotated frame, got none")
        scores = self.macro_accuracy() if macro else self.accuracy()
        return self.thresholds[_first_best(scores)]

    def table(self, threshold_choice: ThresholdChoice, threshold: float | None = None) -> CorLocResult:
        """Return CorLoc per class, per video, over classes and over frames.

        Args:
            threshold_choice: ``validation`` and ``default`` take ``threshold`` as chosen elsewhere, ``oracle`` the best
                one on the added frames themselves, ``oracle per class`` the best one of each class (what the published
                tables of TCAM and CoLo-CAM do: an upper bound), ``none`` says that no map was thresholded.
            threshold: one of the evaluator's thresholds; left out for the oracles; for ``none`` it may be left out
                where the evaluator has but one.

        Raises:
            ValueError: a threshold that is missing, not wanted or not among the evaluator's, or an oracle without
                frames.
        """
        positions = self._positions(threshold_choice, threshold)
        hits, frames = self._counts()
        chosen = hits.gather(1, positions[:, None])[:, 0]
        per_class = 100 * chosen / frames
        own = {
            name: self.thresholds[int(p)] for name, p, n in zip(self.class_names, positions, frames, strict=True) if n
        }
        per_class_choice = threshold_choice == "oracle per class"
        return CorLocResult(
            protocol=CorLocProtocol(
                threshold_choice, self.iou_threshold, inclusive=self.components != "largest", components=self.components
            ),
            threshold=None if per_class_choice or threshold_choice == "none" else self.thresholds[int(positions[0])],
            per_class=dict(zip(self.class_names, per_class.tolist(), strict=True)),
            macro=float(per_class.nanmean()),
            micro=float(100 * chosen.sum() / frames.sum()),
            num_frames=int(frames.sum()),
            per_video=self._per_video(positions),
            frames_per_class=dict(zip(self.class_names, frames.long().tolist(), strict=True)),
            thresholds_per_class=own if per_class_choice else None,
            interval=self._interval(positions) if self._frames else None,
        )

    def _interval(self, positions: Tensor) -> tuple[float, float]:
        low, high = self._resample(positions).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high

    def _resample(self, positions: Tensor) -> Tensor:
        """Return the macro CorLoc of bootstrap draws of videos (with replacement).

        Videos are drawn rather than frames, because frames of one video are similar; thresholds stay. A class that is
        not in a draw is left out of its mean. The draws are the same for every method.
        """
        videos = {video: row for row, video in enumerate(sorted({video for _, video in self._frames}))}
        hits = torch.zeros(len(videos), len(self.class_names), dtype=torch.float64)
        frames = torch.zeros_like(hits)
        for (label, video), count in self._frames.items():
            hits[videos[video], label] = self._hits[label, video][positions[label]].double()
            frames[videos[video], label] = count
        drawn = torch.randint(len(videos), (_DRAWS, len(videos)), generator=torch.Generator().manual_seed(0))
        ones = torch.ones(_DRAWS, len(videos), dtype=torch.float64)
        times = torch.zeros_like(ones).scatter_add_(1, drawn, ones)
        return (100 * (times @ hits) / (times @ frames)).nanmean(dim=1)

    def _counts(self) -> tuple[Tensor, Tensor]:
        """Return correct frames ``[K, L]`` and frames ``[K]``, both float64."""
        hits = torch.zeros(len(self.class_names), len(self.thresholds), dtype=torch.float64)
        frames = torch.zeros(len(self.class_names), dtype=torch.float64)
        for (label, video), count in self._frames.items():
            hits[label] += self._hits[label, video]
            frames[label] += count
        return hits, frames

    def _positions(self, choice: ThresholdChoice, threshold: float | None) -> Tensor:
        """Return the position of the threshold of each class: int64 ``[K]``."""
        if choice in ("oracle", "oracle per class"):
            if threshold is not None:
                raise ValueError(f"'{choice}' finds its own threshold, got {threshold}")
            if choice == "oracle per class":
                hits, _ = self._counts()
                return torch.tensor([_first_best(row) for row in hits])
            threshold = self.best_threshold()
        elif threshold is None:
            if choice != "none" or len(self.thresholds) != 1:
                raise ValueError(f"'{choice}' needs a threshold, got None")
            threshold = self.thresholds[0]
        return torch.full((len(self.class_names),), self._position(threshold))

    def _position(self, threshold: float) -> int:
        nearest = min(range(len(self.thresholds)), key=lambda i: abs(self.thresholds[i] - threshold))
        if not abs(self.thresholds[nearest] - threshold) < _SAME:
            raise ValueError(
                f"threshold must be one of the evaluator's {len(self.thresholds)} "
                f"({self.thresholds[0]:g} to {self.thresholds[-1]:g}), got {threshold}"
            )
        return nearest

    def _per_video(self, positions: Tensor) -> dict[str, float]:
        right: dict[str, float] = {}
        frames: dict[str, int] = {}
        for (label, video), count in sorted(self._frames.items()):
            right[video] = right.get(video, 0.0) + float(self._hits[label, video][positions[label]])
            frames[video] = frames.get(video, 0) + count
        return {video: 100 * right[video] / frames[video] for video in right}


def _first_best(scores: Tensor) -> int:
    """Return the first position of the maximum (``argmax`` may give any)."""
    return int((scores == scores.max()).nonzero()[0, 0])


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
