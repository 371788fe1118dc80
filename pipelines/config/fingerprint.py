"""The settings that determine the result of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pipelines.config.schema import ClassifierSettings


def settings_that_count(classifier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classifier's settings without the constants of other baselines.

    A finished classifier is looked up by these.
    """
    known = get_args(ClassifierSettings.model_fields["baseline"].annotation)
    unused = {*known} - {classifier["baseline"]}  # a baseline's group of constants has its name
    left_out = {*unused, "baseline"} if classifier["baseline"] == "none" else unused
    return {key: value for key, value in classifier.items() if key not in left_out}
