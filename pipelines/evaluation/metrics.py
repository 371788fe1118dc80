"""The metrics of an evaluation besides CorLoc, each with its protocol in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipelines.evaluation.method_evaluator import MethodEvaluator

_GRID = "over frames, WSOL benchmark (224 grid, inclusive-pixel IoU)"
_STEADY = "lower is steadier; mean over videos, arXiv:1611.06467"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a method, with the protocol that the number depends on; ``value`` is NaN if nothing was counted."""

    method: str
    name: str
    value: float
    unit: str
    protocol: str


def list_metrics(methods: Mapping[str, MethodEvaluator], chosen_on: str) -> list[Metric]:
    """Return every metric of every method; ``chosen_on`` says where the map thresholds come from."""
    metrics = []
    for method in methods.values():
        baseline = len(method.corloc.thresholds) == 1
        at = "no map" if baseline else f"map threshold: {chosen_on}"
        figures = [*_box_accuracy(method, baseline)]
        if not baseline:
            figures += _classes(method, at)
        figures += _over_time(method, at)
        for name, value, protocol in figures:
            metrics.append(Metric(method.name, name, value, "%", protocol))
    return metrics


def _box_accuracy(method: MethodEvaluator, baseline: bool) -> Iterator[tuple[str, float, str]]:
    best = "no map" if baseline else "map threshold: oracle"
    single, every = method.contour.compute(), method.contours.compute()
    yield "MaxBoxAcc", single.max_box_acc[0.5], f"{_GRID} >= 0.5, largest contour, {best}"
    protocol = f"{_GRID}, mean of >= 0.3, 0.5, 0.7, best of all contours, {best}"
    yield "MaxBoxAccV2", every.max_box_acc_v2, protocol
    if not baseline:
        for k, by_iou in single.top_localization.items():
            among = f"true class among the {k} most probable" if k > 1 else "true class the most probable"
            yield f"Top-{k} localization, oracle", by_iou[0.5], f"{_GRID} >= 0.5, {among}, largest contour, {best}"


def _classes(method: MethodEvaluator, at: str) -> Iterator[tuple[str, float, str]]:
    level = method.settings.iou_threshold
    ours = method.settings.components == "largest"
    rule = f"{'IoU' if ours else 'inclusive-pixel IoU'} >= {level:g}, largest {'component' if ours else 'contour'}"
    found = method.at_chosen.compute()
    for k, by_iou in found.top_localization.items():
        among = f"true class among the {k} most probable" if k > 1 else "true class the most probable"
        yield f"Top-{k} localization", by_iou[level], f"over frames, {rule}, {among}, {at}"
    pixels = "over all pixels of frames with a mask together, maps and masks at input size, 1000 map thresholds"
    yield "PxAP", method.pxap.compute(), pixels
    yield "Classification accuracy", found.top_accuracy[1], "over frames, true class the most probable"


def _over_time(method: MethodEvaluator, at: str) -> Iterator[tuple[str, float, str]]:
    steady, (found, false_alarms) = method.stability.compute(), method.presence.compute()
    level = f"{method.settings.iou_threshold:g}"
    turns = f"steps between annotated frames where right (IoU >= {level}) turns wrong or back, {at}, {_STEADY}"
    yield "Temporal stability: fragments", steady.fragment, turns
    centre = f"spread of the centre's error in sizes of the true box, {at}, {_STEADY}"
    yield "Temporal stability: centre", steady.centre, centre
    size = f"spread of size and aspect ratio against the true box's, {at}, {_STEADY}"
    yield "Temporal stability: scale and ratio", steady.scale_ratio, size
    yield "Presence", found, f"share of frames with an object where a box was found, {at}"
    absent = f"share of frames known to hold no object where a box was found, {at}"
    yield "Presence: false alarms", false_alarms, absent
