"""Weakly-supervised video object localization: TCAM and its family (arXiv 2208.14542, 2303.09044)."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401  # what a package gives by name has no common type
    """Return ``predict`` and ``StreamLocalizer``, the names for users, and ``__version__``, made at their first use.

    They live in ``pipelines.api``, above this package; nothing in tcam itself may use them
    (.github/decisions/0011-one-import-for-users.md).
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("tcam")
    if name not in ("StreamLocalizer", "predict"):
        raise AttributeError(f"module 'tcam' has no attribute '{name}'")
    return getattr(import_module("pipelines.api"), name)
