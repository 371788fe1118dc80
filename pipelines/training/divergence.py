"""Detect numbers that are not finite during training, and name the stage and the setting at fault."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.models.device import Compute
from pipelines.training.distributed.process_group import ProcessGroup
from tcam.errors import TrainingError
from tcam.model.network import FrameCamNet


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a training: its stage, the epoch (from 1), and whether the stage has made any step."""

    stage: str
    epoch: int
    learnt: bool
    compute: Compute

    def check_losses(self, numbers: Mapping[str, float], network: FrameCamNet, frames: Tensor) -> None:
        """Check the terms of a loss, by name, that were computed from uint8 frames ``[N, 3, H, W]``.

        Raises:
            TrainingError: one of them is not finite.
        """
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if bad:
            found = ", ".join(f"{name} = {number:g}" for name, number in numbers.items())
            advice = self._advice() if self.learnt else self._advice_before(network, frames, bad[0])
            raise TrainingError(
                f"{self.stage} stopped in epoch {self.epoch}: loss term '{bad[0]}' is not finite ({found}); {advice}"
            )

    def check_network(self, network: FrameCamNet, frames: Tensor, group: ProcessGroup) -> None:
        """Check the network's output for uint8 frames ``[N, 3, H, W]``, in evaluation mode, after the last step.

        The losses only cover the steps before it; without this check the next stage would fail, or maps be meaningless.

        Raises:
            TrainingError: some output is not finite, in any process of the group.
        """
        bad = not all(self._speaks(network, frames))
        if group.any(bad) or bad:
            raise TrainingError(
                f"{self.stage} stopped at the end of epoch {self.epoch}: what its network says of frames is not "
                f"finite; {self._advice()}"
            )

    def _speaks(self, network: FrameCamNet, frames: Tensor) -> tuple[bool, bool]:
        """Whether the class scores are finite, and whether the maps are."""
        with torch.no_grad(), self.compute.autocast():
            output = network.eval()(frames)
        classes = bool(output.class_logits.isfinite().all() and output.features.isfinite().all())
        return classes, output.map_logits is None or bool(output.map_logits.isfinite().all())

    def _advice(self) -> str:
        return f"try a lower {self.stage}.lr{self._precision()}"

    def _advice_before(self, network: FrameCamNet, frames: Tensor, term: str) -> str:
        """Return what to do if the stage has made no step, so that its learning rate is not to blame."""
        if self._speaks(network, frames)[0]:
            return f"no step is made yet, so look at the settings of '{term}'{self._precision()}"
        if self.stage == "classifier":
            return f"no step is made yet, so try other model.weights{self._precision()}"
        return f"the classifier had diverged: try a new run with a lower classifier.lr{self._precision()}"

    def _precision(self) -> str:
        return "" if self.compute.dtype == torch.float32 else ", or precision=fp32"
