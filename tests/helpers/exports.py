"""What an exported file says of itself, for tests that need none of the exporters; exports that trace once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import pytest

from pipelines.models import export
from pipelines.models.exported import Facts
from pipelines.models.localizer import NetworkLocalizer
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


@contextmanager
def traced_once() -> Iterator[None]:
    """Trace a network for the first of its exports alone: it takes seconds, and the same for every format."""
    make_onnx, made = export._make_onnx, {}

    def once(localizer: NetworkLocalizer, facts: Facts) -> bytes:
        weights = [(name, tensor.numpy().tobytes()) for name, tensor in localizer.network.state_dict().items()]
        key = sha256(repr((facts, localizer.method, localizer.network, weights)).encode()).digest()
        made[key] = made[key] if key in made else make_onnx(localizer, facts)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_make_onnx", once)
        yield
