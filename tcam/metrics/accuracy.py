"""MaxBoxAcc, MaxBoxAccV2, top-1 and top-5 localization and classification accuracy, each over all frames.

MaxBoxAcc (Choe et al., CVPR 2020) is the share of frames whose box reaches an IoU, at the map threshold that gives the
highest share on the evaluated frames themselves: an oracle. V2 averages IoU 0.3, 0.5 and 0.7, each at its own best
threshold. A localization counts as top-k if the true class is also among the k most probable ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOPS = (1, 5)


@dataclass(frozen=True, slots=True)
class BoxAccuracy:
    """Accuracies in percent; NaN if there were no frames (for the top-k values: no frames with classes).

    Attributes:
        max_box_acc: by IoU threshold.
        max_box_acc_v2: the mean of those.
        top_localization: by k, then by IoU threshold.
        top_accuracy: classification, by k.
        num_frames: number of frames.
    """

    max_box_acc: Mapping[float, float]
    max_box_acc_v2: float
    top_localization: Mapping[int, Mapping[float, float]]
    top_accuracy: Mapping[int, float]
    num_frames: int


class BoxAccuracyEvaluator:
    """Counts correct frames at L map thresholds; memory does not grow.

    Args:
        num_thresholds: L.
        iou_thresholds: the IoU values that a correct box must reach.

    Raises:
        ValueError: no map threshold, or an overlap outside 0..1 (0 excluded).
    """

    def __init__(self, num_thresholds: int, *, iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7)) -> None:
        if num_thresholds < 1 or not iou_thresholds or not all(0 < value <= 1 for value in iou_thresholds):
            raise ValueError(f"expected map thresholds and IoUs in 0..1, got {num_thresholds} and {iou_thresholds}")
        self.iou_thresholds = tuple(iou_thresholds)
        shape = (1 + len(TOPS), len(iou_thresholds), num_thresholds)
        self._right = torch.zeros(shape, dtype=torch.int64)  # of any class, then of those in the top 1 and 5
        self._in_top = torch.zeros(len(TOPS), dtype=torch.int64)
        self._frames = 0
        self._classified = 0

    def add(self, overlap: Tensor, class_rank: Tensor | None = None) -> None:
        """Add N frames.

        Args:
            overlap: ``[N, L]``, the IoU of the box at each threshold with the best true box.
            class_rank: ``[N]``, the place of the true class among the predicted ones, 0 first; None where no class is
                predicted.

        Raises:
            ValueError: other shapes.
        """
        if overlap.ndim != 2 or overlap.shape[1] != self._right.shape[2]:
            raise ValueError(f"overlap must be [N, {self._right.shape[2]}], got {list(overlap.shape)}")
        if class_rank is not None and class_rank.shape != overlap.shape[:1]:
            raise ValueError(f"class_rank must be [{len(overlap)}], got {list(class_rank.shape)}")
        wanted = torch.tensor(self.iou_thresholds, dtype=torch.float64)
        right = (overlap.cpu()[:, None] >= wanted[:, None]).long()
        self._right[0] += right.sum(dim=0)
        self._frames += len(overlap)
        if class_rank is not None:
            in_top = (class_rank.cpu()[:, None] < torch.tensor(TOPS)).long()
            self._right[1:] += torch.einsum("nk,ndl->kdl", in_top, right)
            self._in_top += in_top.sum(dim=0)
            self._classified += len(overlap)

    def compute(self) -> BoxAccuracy:
        """Return the accuracies of the frames added so far."""
        frames = torch.tensor([self._frames] + [self._classified] * len(TOPS), dtype=torch.float64)
        best = (100 * self._right.double() / frames[:, None, None]).amax(dim=2).tolist()
        by_iou = [dict(zip(self.iou_thresholds, row, strict=True)) for row in best]
        return BoxAccuracy(
            max_box_acc=by_iou[0],
            max_box_acc_v2=sum(best[0]) / len(best[0]),
            top_localization=dict(zip(TOPS, by_iou[1:], strict=True)),
            top_accuracy=dict(zip(TOPS, (100 * self._in_top.double() / frames[1:]).tolist(), strict=True)),
            num_frames=self._frames,
        )


def rank_of_class(probabilities: Tensor, labels: Tensor, *, also: Sequence[int] = ()) -> Tensor:
    """Return the rank of each label ``[N]`` by the class probabilities ``[N, K]``; 0 is the most probable class.

    ``also`` are further true classes of these frames, which are left out.
    """
    own = probabilities.gather(1, labels[:, None])
    above = probabilities > own
    for label in also:
        above[:, label] = False
    return above.sum(dim=1)
