"""The time that is left of a run."""

import pytest

from pipelines.run.plan import RunPlan, current_plan


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_follows_the_steps_done_and_leaves_those_out_that_took_none():
    clock = Clock()
    plan = RunPlan({"classifier": 10.0, "cams": 5.0, "localizer": 20.0, "evaluation": 5.0}, clock=clock)

    def take(seconds):
        clock.now += seconds
        return plan.place, plan.seconds_left, plan.seconds_after

    assert plan.run("classifier", lambda: take(30)) == ("step 1 of 4", None, None)
    # cams are copied from another run: three seconds a unit remain for 25 units
    assert plan.run("localizer", lambda: take(30)) == ("step 3 of 4", 75.0, 15.0)
    assert plan.run("evaluation", lambda: take(1)) == ("step 4 of 4", 10.0, 0.0)  # 60 s for 30 units


def test_the_innermost_plan_is_the_present_one_and_no_other_step_is_done():
    assert current_plan() is None
    with RunPlan({"a": 1.0}) as outer, RunPlan({"b": 1.0}) as inner:
        assert current_plan() is inner
        with pytest.raises(KeyError, match="no step 'a'; there are b"):
            inner.run("a", lambda: None)
        assert outer.run("a", lambda: 3) == 3
    assert current_plan() is None
