"""What an exported file says of itself, for tests that write one or need none of the exporters."""

from __future__ import annotations

from pipelines.models.exported import Facts
from tests.helpers.tiny import SIDE


def some_facts(**changes) -> Facts:
    known = {
        "tcam": "0",
        "run": "tiny",
        "method": "layercam",
        "classes": ("beetle", "fish"),
        "threshold": 0.5,
        "size": (SIDE, SIDE),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "numbers": "float32",
        "precision": "fp32",
        "memory_limit_mb": 4000.0,
        "weights_hash": None,
        "config": {},
    }
    return Facts.model_validate({**known, **changes})
