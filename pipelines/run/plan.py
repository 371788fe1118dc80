"""What a run still has to do, and about how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Result = TypeVar("Result")

_plans: list[RunPlan] = []


class RunPlan:
    """The steps of a run in order, each with its amount of work, and the time that those done have taken.

    As a context it is the plan that progress bars show (``current_plan``). Amounts are estimates in any one unit, so
    times are rough; they get better with every step. Steps that are kept or copied from another run take no time and
    do not count.
    """

    def __init__(self, work: Mapping[str, float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._work, self._clock = dict(work), clock
        self._names = list(self._work)
        self._at = -1
        self._seconds = self._units = 0.0

    def __enter__(self) -> RunPlan:
        _plans.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _plans.remove(self)

    def run(self, name: str, work: Callable[[], Result]) -> Result:
        """Do the work of a step, and learn from the time it takes.

        Raises:
            KeyError: no such step.
        """
        if name not in self._work:
            raise KeyError(f"no step {name!r}; there are {', '.join(self._names)}")
        self._at = self._names.index(name)
        began = self._clock()
        result = work()
        self._seconds += self._clock() - began
        self._units += self._work[name]
        return result

    @property
    def place(self) -> str:
        """The number of the step and how many there are, such as ``step 3 of 9``."""
        return f"step {self._at + 1} of {len(self._names)}"

    @property
    def seconds_after(self) -> float | None:
        """About how long the steps after the present one take; None while no step is done."""
        return self._estimate(self._at + 1)

    @property
    def seconds_left(self) -> float | None:
        """About how long the present step takes, from its start, and all after it; None while no step is done."""
        return self._estimate(self._at)

    def _estimate(self, first: int) -> float | None:
        if not self._units:
            return None
        return self._seconds / self._units * sum(self._work[name] for name in self._names[first:])


def current_plan() -> RunPlan | None:
    """Return the plan of the run that this process works on, if it has one."""
    return _plans[-1] if _plans else None
