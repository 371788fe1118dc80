"""Add a localizer method: TCAM with one more loss, which asks for smooth maps.

    python docs/examples/add_method.py train --videos videos/ --method smooth

A method is a row of ``METHODS``: its loss, its default settings, the clips it trains on. Command line, training loop,
evaluation and prediction take it from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipelines.cli.app import main
from pipelines.config.localizer_groups import LocalizerSettings
from pipelines.config.methods import METHODS, Method
from tcam.supervision.max_min import ScoreMasked
from tcam.supervision.objective import Objective, clip_maps
from tcam.types import ClipBatch, FrameOutput, LossTerms, PixelLabels


def total_variation(foreground: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of maps ``[N, H, W]`` in 0..1."""
    down = (foreground[:, 1:] - foreground[:, :-1]).abs().mean()
    across = (foreground[:, :, 1:] - foreground[:, :, :-1]).abs().mean()
    return down + across


@dataclass(frozen=True)
class SmoothObjective:
    """TCAM's terms, and the total variation of the foreground."""

    base: Objective
    weight: float

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Compute the terms; see ``tcam.supervision.objective.Objective``."""
        losses = self.base(output, batch, labels, barrier_t=barrier_t)
        foreground = clip_maps(output, batch).flatten(0, 1).softmax(dim=1)[:, 1]
        return losses.plus("smooth", total_variation(foreground), weight=self.weight, count=len(foreground))


def smooth_objective(settings: LocalizerSettings, score_masked: ScoreMasked) -> SmoothObjective:
    """Build the loss from the settings of a run."""
    return SmoothObjective(METHODS["tcam"].objective(settings, score_masked), weight=0.1)


METHODS["smooth"] = Method(
    summary="TCAM with smooth maps",
    objective=smooth_objective,
    defaults={"localizer": {"crf": {"weight": 0.0}}},
)

if __name__ == "__main__":
    main()
