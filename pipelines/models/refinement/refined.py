"""What goes over the maps of a run at the end: a CRF over each frame, or a walk over the frames of a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipelines.config.schema import WalkSettings
from pipelines.models.engine import Refinement
from pipelines.models.localizer import NetworkLocalizer
from tcam.boxes.refine import MeanField
from tcam.supervision.joint_walk import JointWalk


def refined_localizers(
    localizers: Mapping[str, NetworkLocalizer],
    thresholds: Mapping[str, float],
    refinement: Refinement,
    walk: WalkSettings,
) -> dict[str, NetworkLocalizer]:
    """Return a copy of each localizer, named ``<name> + <refinement>``, whose maps are refined; none for ``none``.

    Args:
        localizers: by name.
        thresholds: by name; a CRF refines a map around its threshold.
        refinement: ``crf``: of each frame. ``joint``: the frames of a video walk together.
        walk: settings of that walk.

    Raises:
        MissingPartError: pydensecrf, which ``crf`` needs, is not installed.
    """
    if refinement == "none":
        return {}
    if refinement == "joint":
        joint = JointWalk(**walk.model_dump())
        return {f"{name} + joint": replace(localizer, walk=joint) for name, localizer in localizers.items()}
    return {
        f"{name} + crf": replace(localizer, refine=MeanField(threshold=thresholds[name]))
        for name, localizer in localizers.items()
    }
